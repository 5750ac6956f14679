"""Runs the cells of a comparison one by one, or finds their results in earlier runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import mlflow
import numpy as np

from medtl.comparison.cell_runs import KEY_TAG, finished_cell, log_outcome
from medtl.comparison.design import Cell, Plan, arm, cell_names
from medtl.comparison.learning_rates import ChosenRates
from medtl.comparison.runner import SharedResources
from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.model_comparison import Cases, CellResult, Outcome
from medtl.pipeline.cross_validation import TEST_TAG
from medtl.tracking.runs import nested_run
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import TransferLearner


def scored_cases(dataset: Dataset, indices: np.ndarray) -> tuple[Cases, list[str]]:
    """Returns samples as cases, and their names: hashes of the contents of their images."""
    labels, groups = dataset.labels[indices], dataset.groups[indices]
    cases = Cases(labels, groups, dataset.classes, dataset.unit, dataset.known_patients(indices))
    return cases, np.asarray(dataset.frame["content"])[indices].tolist()


class Cells:
    """Runs the cells of a plan one by one, or finds their results in earlier runs.

    `reused` counts the results that were found; `parent` is the study's run.
    """

    def __init__(
        self, plan: Plan, resources: SharedResources, dataset: Dataset, seed: int, parent: str
    ) -> None:
        self.cases, self._case_names = scored_cases(dataset, resources.scored(dataset))
        self.names = cell_names(plan.cells)
        self.reused = 0
        self._arms = cell_names([dataclasses.replace(cell, seed=0) for cell in plan.cells])
        self._plan, self._resources, self._seed, self._parent = plan, resources, seed, parent

    def ordered(self) -> list[Cell]:
        """Returns the cells sorted by backbone, so that each backbone is loaded once."""
        cells = self._plan.cells
        origins = list(dict.fromkeys((cell.architecture, cell.weights) for cell in cells))
        return sorted(
            cells,
            key=lambda cell: (origins.index((cell.architecture, cell.weights)), cell.seed),
        )

    def cell_result(self, cell: Cell, rates: ChosenRates) -> CellResult:
        """Returns the result of a cell, or the reason why it failed.

        `rates` has the learning rates of arms. In the first cell of an arm it is chosen.
        """
        try:
            outcome = self._outcome(rates.settled(cell), self.names[cell])
            return dataclasses.replace(self._described(cell), outcome=outcome)
        except MedtlError as error:
            return self.failed(cell, str(error))

    def failed(self, cell: Cell, reason: str) -> CellResult:
        """Returns the result of a failed cell."""
        return dataclasses.replace(self._described(cell), error=reason)

    def _described(self, cell: Cell) -> CellResult:
        return CellResult(
            name=self.names[cell],
            arm=self._arms[arm(cell)],
            architecture=cell.architecture,
            series=cell.series,
            cutoff=cell.cutoff,
            fraction=cell.fraction,
            seed=cell.seed,
            settings=dataclasses.asdict(cell)
            | {"rates": ",".join(f"{rate:g}" for rate in cell.rates)},
        )

    def _outcome(self, cell: Cell, name: str) -> Outcome:
        """Returns the result of the cell of this name, from this or an earlier run.

        Raises:
            MedtlError: the cell failed; its run has the same message.
        """
        tags = {"medtl.kind": "cell", "medtl.study": self._plan.study}
        transfer: TransferLearner | None = None
        try:
            transfer = self._resources.transfer(cell)
        except Exception as error:
            reason = _as_line(error)
        else:
            key = self._resources.key(cell, transfer)
            known = finished_cell(key, self.cases, self._case_names, self._parent)
            if known is not None:
                self.reused += 1
                return known
            backbone = transfer.backbone
            tags |= {
                KEY_TAG: key,
                "medtl.architecture": backbone.architecture,
                "medtl.weights": backbone.weights,
                "medtl.cutoff": cell.cutoff,
                "medtl.data": transfer.dataset.fingerprint,
            }
        with (
            CheckpointHold() as ends,
            nested_run(name, tags, cell.params(), self._parent) as run,
        ):
            if transfer is None:
                raise reason
            try:
                outcome = self._run(cell, transfer, run.info.run_id, ends)
                log_outcome(outcome, self.cases, self._case_names, self._scores(outcome))
            except Exception as error:
                raise _as_line(error) from error
        return outcome

    def _run(
        self, cell: Cell, transfer: TransferLearner, run_id: str, ends: CheckpointHold
    ) -> Outcome:
        if not transfer.settings.folds:
            return self._resources.run(cell, transfer, run_id, ends)
        mlflow.set_tag(TEST_TAG, "out-of-fold")
        return self._resources.run_on_folds(cell, transfer, run_id, ends)

    def _scores(self, outcome: Outcome) -> Mapping[str, Interval]:
        cases = self.cases
        return measure(
            cases.labels, outcome.probabilities, cases.groups, cases.classes, self._seed
        ).summary


def _as_line(error: Exception) -> MedtlError:
    """Returns any error as a `MedtlError` of one line."""
    if isinstance(error, MedtlError):
        return error
    return MedtlError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
