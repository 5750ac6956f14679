"""The cells of a study: each run below it, or found where it was run before."""

from __future__ import annotations

import dataclasses

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.comparison import Cases, Contender, Outcome
from medtl.evaluation.intervals import measure
from medtl.jobs.bench import Bench, test_cases
from medtl.jobs.rates import ChosenRates
from medtl.search.studies import Cell, Plan, arm, cell_names
from medtl.tracking.cells import KEY_TAG, finished_cell, log_outcome
from medtl.tracking.runs import nested_run
from medtl.training.checkpoints import Ends
from medtl.training.transfer import Transfer


class Cells:
    """Runs the cells of a plan one by one, or finds what they came to before.

    `reused` counts those that were found; `parent` is the study's run.
    """

    def __init__(self, plan: Plan, bench: Bench, dataset: Dataset, seed: int, parent: str) -> None:
        self.cases, self._case_names = test_cases(dataset)
        self.names = cell_names(plan.cells)
        self.reused = 0
        self._arms = cell_names([dataclasses.replace(cell, seed=0) for cell in plan.cells])
        self._plan, self._bench, self._seed, self._parent = plan, bench, seed, parent

    def ordered(self) -> list[Cell]:
        """Cells of one backbone after each other: it is made, and its activations opened, once."""
        cells = self._plan.cells
        origins = list(dict.fromkeys((cell.architecture, cell.weights) for cell in cells))
        return sorted(
            cells,
            key=lambda cell: (origins.index((cell.architecture, cell.weights)), cell.seed),
        )

    def contender(self, cell: Cell, rates: ChosenRates) -> Contender:
        """Returns the cell with what it came to, or why it failed.

        `rates` are those of its repeats; a cell that is the first of its arm chooses its own.
        """
        try:
            outcome = self._outcome(rates.settled(cell), self.names[cell])
            return dataclasses.replace(self._described(cell), outcome=outcome)
        except MedtlError as error:
            return self.failed(cell, str(error))

    def failed(self, cell: Cell, reason: str) -> Contender:
        """Returns the cell with why it failed."""
        return dataclasses.replace(self._described(cell), error=reason)

    def _described(self, cell: Cell) -> Contender:
        return Contender(
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
            MedtlError: it failed; the line also stands in its run.
        """
        tags = {"medtl.kind": "cell", "medtl.study": self._plan.study}
        transfer: Transfer | None = None
        try:
            transfer = self._bench.transfer(cell)
        except Exception as error:
            reason = _as_line(error)
        else:
            key = self._bench.key(cell, transfer)
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
            Ends() as ends,
            nested_run(name, tags, cell.params(), self._parent) as run,
        ):
            if transfer is None:
                raise reason
            try:
                outcome = self._bench.run(cell, transfer, run.info.run_id, ends)
                log_outcome(outcome, self.cases, self._case_names, self._scores(outcome))
            except Exception as error:
                raise _as_line(error) from error
        return outcome

    def _scores(self, outcome: Outcome):
        cases: Cases = self.cases
        return measure(
            cases.labels, outcome.probabilities, cases.groups, cases.classes, self._seed
        ).summary


def _as_line(error: Exception) -> MedtlError:
    """Any error as the one line of a failed cell; ours are such lines already."""
    if isinstance(error, MedtlError):
        return error
    return MedtlError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
