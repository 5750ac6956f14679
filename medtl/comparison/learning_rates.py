"""Learning rates of the arms of a study, chosen on the validation split."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence

import mlflow

from medtl.comparison.design import Cell, arm
from medtl.errors import MedtlError
from medtl.evaluation.model_comparison import CellResult, TriedRate
from medtl.pipeline.run_logging import log_epoch
from medtl.pipeline.setup import fit_model
from medtl.settings.training import TrainSettings
from medtl.training.checkpoints import CheckpointHold
from medtl.training.device import OutOfMemoryError
from medtl.training.learner import Trained, TransferLearner


class ChosenRates:
    """Learning rates of arms: the first cell of an arm that finishes chooses for its repeats."""

    def __init__(self) -> None:
        self._by_arm: dict[Cell, float] = {}

    def add(self, cell: Cell, cell_result: CellResult) -> None:
        """Takes the rate that a finished cell has chosen, if it has."""
        if cell_result.outcome is not None and cell_result.outcome.rates:
            self._by_arm.setdefault(arm(cell), cell_result.outcome.lr)

    def settled(self, cell: Cell) -> Cell:
        """Returns the cell at the rate of its arm; as it is where none is chosen yet."""
        lr = self._by_arm.get(arm(cell))
        return cell if lr is None else cell.at_rate(lr)

    def waits(self, cell: Cell, running: Iterable[Cell]) -> bool:
        """Whether one of the running cells is about to choose the rate of this one."""
        if not cell.rates or arm(cell) in self._by_arm:
            return False
        return arm(cell) in set(map(arm, running))


def trained_at_best_rate(
    settings: TrainSettings,
    rates: Sequence[float],
    transfer: TransferLearner,
    cutoff: str,
    ends: CheckpointHold,
) -> tuple[Trained, tuple[TriedRate, ...]]:
    """Trains at each rate, and returns the model with the best validation AUROC.

    Of equal ones the lower validation loss decides. The epochs of the chosen training are logged
    in the active run, and of each candidate its score. A head that is solved has no learning rate:
    nothing is tried then. A candidate that diverges is one of them, with NaN as its score.

    Raises:
        MedtlError: every candidate failed.
        OutOfMemoryError: memory is insufficient, at whatever rate.
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
            log_epoch(model.fit.best)
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
        log_epoch(epoch)
    return best, tuple(tried)


def chosen_rate(tried: Sequence[TriedRate]) -> TriedRate:
    """Returns the candidate with the best validation AUROC, of equal ones the lowest loss."""
    finished = [each for each in tried if each.best_epoch]
    return max(finished, key=lambda each: (each.valid_auroc, -each.valid_loss))
