"""What a study found: its best trials, their table, and which parameter mattered."""

from __future__ import annotations

import optuna
import pandas as pd
from optuna.trial import TrialState

from medtl.search.space import AnyCandidate, AnySpace
from medtl.search.study import ERROR, completed

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def best_of_each(study: optuna.Study, space: AnySpace) -> dict[AnyCandidate, float]:
    """The best completed candidate of each architecture with its score, the best of all first."""
    ranked = sorted(completed(study), key=lambda trial: trial.value, reverse=True)
    best: dict[str, tuple[AnyCandidate, float]] = {}
    for trial in (study.best_trial, *ranked):
        candidate = space.candidate(trial.params)
        best.setdefault(candidate.architecture, (candidate, trial.value))
    return dict(best.values())


def table(study: optuna.Study, space: AnySpace) -> pd.DataFrame:
    """A row a finished trial, in order; none for one that was killed as its parameters were drawn.

    Columns: `number`, `state` (complete, pruned, failed), `score` (validation AUROC; of a pruned
    trial its last), the candidate's own, `cutoff` (categories in forward order), `epochs`,
    `seconds`, `error`.
    """
    rows, drawn = [], space.distributions().keys()
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.WAITING, TrialState.RUNNING) or trial.params.keys() != drawn:
            continue
        seen = trial.intermediate_values
        rows.append(
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "score": trial.value if trial.value is not None else seen.get(max(seen, default=0)),
                **space.candidate(trial.params).params(),
                "epochs": max(seen, default=0),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "error": trial.user_attrs.get(ERROR, ""),
            }
        )
    trials = pd.DataFrame(rows)
    trials["score"] = trials["score"].astype(float)
    trials["cutoff"] = pd.Categorical(trials["cutoff"], space.cutoffs, ordered=True)
    return trials


def importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """The share of each parameter in the variance of the score (fANOVA, Hutter et al. 2014).

    Empty when too few trials were completed to say, or when they all scored the same.
    """
    values = {trial.value for trial in completed(study)}
    if len(completed(study)) < 4 or len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {"cutoff" if name == "depth" else name: share for name, share in shares.items()}
