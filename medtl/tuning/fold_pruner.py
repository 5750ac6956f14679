"""Pruner of cross-validated trials: compares means over the same folds."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState


class FoldPruner(optuna.pruners.BasePruner):
    """Prunes a trial whose mean over its first folds is below the median of completed trials.

    A trial reports its mean over the folds so far at the step of their number. Optuna's median
    pruner takes the best value of all steps instead, which is that of the easiest first folds.
    """

    def __init__(self, unpruned: int) -> None:
        """`unpruned` is the number of completed trials before any is pruned."""
        self._unpruned = unpruned

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether to end the trial after its last fold."""
        step = trial.last_step
        if step is None:
            return False
        completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        others = [each.intermediate_values[step] for each in completed
                  if step in each.intermediate_values]  # fmt: skip
        if len(others) < self._unpruned:
            return False
        return bool(trial.intermediate_values[step] < np.nanmedian(others))
