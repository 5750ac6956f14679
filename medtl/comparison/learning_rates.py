"""Learning rates of the arms of a study, chosen on the validation split."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence

import mlflow
import numpy as np

from medtl.comparison.design import Cell, arm
from medtl.errors import MedtlError
from medtl.evaluation.model_comparison import CellResult, TriedRate
from medtl.pipeline.run_logging import log_epoch
from medtl.pipeline.setup import fit_model
from medtl.settings.training import TrainSettings
from medtl.training.checkpoints import CheckpointHold
from medtl.training.device import OutOfMemoryError
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch


class ChosenRates:
    """Learning rates of arms: that of the first finished cell of an arm holds for its repeats."""

    def __init__(self) -> None:
        self._by_arm: dict[Cell, float] = {}

    def add(self, cell: Cell, cell_result: CellResult) -> None:
        """Records the learning rate chosen in a finished cell, if one was."""
        if cell_result.outcome is not None and cell_result.outcome.rates:
            self._by_arm.setdefault(arm(cell), cell_result.outcome.lr)

    def settled(self, cell: Cell) -> Cell:
        """Returns the cell at the learning rate of its arm; unchanged if none is chosen yet."""
        lr = self._by_arm.get(arm(cell))
        return cell if lr is None else cell.at_rate(lr)

    def waits(self, cell: Cell, running: Iterable[Cell]) -> bool:
        """Returns whether a running cell chooses the learning rate of this one."""
        if not cell.rates or arm(cell) in self._by_arm:
            return False
        return arm(cell) in set(map(arm, running))


def trained_at_best_rate(
    settings: TrainSettings,
    rates: Sequence[float],
    transfer: TransferLearner,
    cutoff: str,
    ends: CheckpointHold,
    on_epoch: Callable[[Epoch], None] = log_epoch,
) -> tuple[Trained, tuple[TriedRate, ...]]:
    """Trains at each learning rate and returns the model with the best validation AUROC.

    Ties are decided by the lower validation loss. Calls `on_epoch` for the epochs of the chosen
    training, and logs the score of each candidate in the active run. A solved head has no learning
    rate, so it is trained once and the list of candidates is empty. A training that diverges has
    the score NaN.

    Raises:
        MedtlError: every candidate failed.
        OutOfMemoryError: memory is insufficient, which no learning rate changes.
    """
    best: Trained | None = None
    tried: list[TriedRate] = []
    failure: MedtlError | None = None
    for lr in rates:
        started = time.perf_counter()
        try:
            at_rate = dataclasses.replace(settings, lr=lr)
            model = fit_model(at_rate, transfer, cutoff, lambda epoch: None, ends)
        except OutOfMemoryError:
            raise
        except MedtlError as error:
            failure = error
            tried.append(TriedRate(lr, math.nan, math.nan, 0, time.perf_counter() - started))
            continue
        if model.solved is not None:
            on_epoch(model.fit.best)
            return model, ()
        epoch = model.fit.best
        tried.append(
            TriedRate(
                lr,
                epoch.valid_auroc,
                epoch.valid_loss,
                epoch.number,
                time.perf_counter() - started,
            )
        )
        mlflow.log_metric(f"valid_auroc_lr_{lr:g}", epoch.valid_auroc)
        if chosen_rate(tried) is tried[-1]:
            best = model
    if best is None:
        assert failure is not None
        raise failure
    for epoch in best.fit.epochs:
        on_epoch(epoch)
    return best, tuple(tried)


def chosen_rate(tried: Sequence[TriedRate]) -> TriedRate:
    """Returns the candidate with the best validation AUROC; ties go to the lower loss."""
    finished = [each for each in tried if each.best_epoch]
    return max(finished, key=lambda each: (each.valid_auroc, -each.valid_loss))


def mean_of_folds(tried: Sequence[Sequence[TriedRate]]) -> tuple[TriedRate, ...]:
    """Averages candidates that each fold tried, the same in all; none of solved heads."""
    return tuple(
        TriedRate(
            of_rate[0].lr,
            float(np.mean([each.valid_auroc for each in of_rate])),
            float(np.mean([each.valid_loss for each in of_rate])),
            # 0 means that a training failed
            min(each.best_epoch for each in of_rate),
            sum(each.seconds for each in of_rate),
        )
        for of_rate in zip(*tried, strict=True)
    )
