"""Compare: a study as a run, each of its cells as a run below it, and the report of all."""

from __future__ import annotations

import dataclasses

import mlflow
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.table import EMBEDDED
from medtl.errors import MedtlError
from medtl.evaluation.comparison import Cases, Contender, Outcome, compared
from medtl.evaluation.intervals import measure
from medtl.evaluation.report import Report, Subject, report
from medtl.jobs.bench import Bench, test_cases
from medtl.jobs.conclude import split_facts
from medtl.jobs.nearness import source_distances
from medtl.keep import key_of
from medtl.progress import progress
from medtl.search.studies import Cell, Plan, arm, cell_names, plan_of
from medtl.settings import CompareSettings
from medtl.tracking.cells import (
    ASKS_TAG,
    KEY_TAG,
    close_cut_off_studies,
    finished_cell,
    log_outcome,
)
from medtl.tracking.journal import contact_sheet, log_data, log_table
from medtl.tracking.runs import TEXT_LIMIT, name_run, nested_run, tracked_run
from medtl.training.transfer import Transfer

NOT_ASKED = ("device", "keep")


def compare(settings: CompareSettings) -> None:
    """Runs a study, or goes on with it, and writes its report and its table.

    A cell that fails is shown as such. The validation split chooses each cell's epoch; the test
    split is scored once a cell.

    Raises:
        ParameterError: a parameter is wrong.
        MedtlError: the data cannot be trained on, or every cell failed.
    """
    with tracked_run("compare", settings) as run:
        plan = plan_of(settings)
        settings = dataclasses.replace(settings, data=plan.data or settings.data)
        mlflow.set_tag("medtl.study", plan.study)
        bench = Bench(settings, plan)
        dataset = bench.dataset(plan.cells)
        log_data(dataset)
        name_run(f"{plan.study} {dataset.name}")
        asked = {
            name: value
            for name, value in dataclasses.asdict(settings).items()
            if name not in NOT_ASKED
        }
        asks = key_of(asked, dataset.fingerprint)
        close_cut_off_studies(asks, run.info.run_id)
        mlflow.set_tags({"medtl.data": dataset.fingerprint, ASKS_TAG: asks})
        runner = _Runner(plan, bench, dataset, settings.seed, run.info.run_id)
        contenders = runner.contenders()
        finished = sum(each.outcome is not None for each in contenders)
        mlflow.log_metrics({"cells": len(contenders), "failed_cells": len(contenders) - finished})
        if not finished:
            raise MedtlError(f"every cell of the study failed; the first: {contenders[0].error}")
        names = runner.names
        comparison = compared(
            runner.cases,
            contenders,
            [(names[a], names[b]) for a, b in plan.pairs],
            plan.metric,
            settings.seed,
        )
        sources = source_distances(bench, plan.cells)
        written = report(_subject(settings, plan, dataset, sources), comparison)
        _log(written, comparison.table(), sources)
        place = mlflow.get_artifact_uri("report/report.html")
    print(f"study         {plan.study}: {finished} of {len(contenders)} cells")
    if runner.reused:
        print(f"going on      {runner.reused} of them were known from before")
    print(written.summary)
    print(f"report        {place.removeprefix('file://')}")


class _Runner:
    """Runs the cells of a plan one by one, or finds what they came to before."""

    def __init__(self, plan: Plan, bench: Bench, dataset: Dataset, seed: int, parent: str) -> None:
        self.cases, self._case_names = test_cases(dataset)
        self.names = cell_names(plan.cells)
        self.reused = 0
        self._arms = cell_names([dataclasses.replace(cell, seed=0) for cell in plan.cells])
        self._plan, self._bench, self._seed, self._parent = plan, bench, seed, parent

    def contenders(self) -> list[Contender]:
        """All cells, in the plan's order, with what they came to or why they failed."""
        cells = self._plan.cells
        origins = list(dict.fromkeys((cell.architecture, cell.weights) for cell in cells))
        # cells of one backbone after each other: it is made, and its activations opened, once
        ordered = sorted(
            cells,
            key=lambda cell: (origins.index((cell.architecture, cell.weights)), cell.seed),
        )
        done = {
            cell: self._contender(cell)
            for cell in progress(ordered, len(ordered), self._plan.study, unit="cell")
        }
        return [done[cell] for cell in cells]

    def _contender(self, cell: Cell) -> Contender:
        contender = Contender(
            name=self.names[cell],
            arm=self._arms[arm(cell)],
            architecture=cell.architecture,
            series=cell.series,
            cutoff=cell.cutoff,
            fraction=cell.fraction,
            seed=cell.seed,
            settings=dataclasses.asdict(cell),
        )
        try:
            return dataclasses.replace(contender, outcome=self._outcome(cell))
        except MedtlError as error:
            return dataclasses.replace(contender, error=str(error))

    def _outcome(self, cell: Cell) -> Outcome:
        """What the cell came to, now or in an earlier run.

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
        with nested_run(self.names[cell], tags, cell.params()) as run:
            if transfer is None:
                raise reason
            try:
                outcome = self._bench.run(cell, transfer, run.info.run_id)
                log_outcome(outcome, self.cases, self._case_names, self._scores(outcome))
            except Exception as error:
                raise _as_line(error) from error
        return outcome

    def _scores(self, outcome: Outcome):
        cases: Cases = self.cases
        return measure(
            cases.labels, outcome.probabilities, cases.patients, cases.classes, self._seed
        ).summary


def _as_line(error: Exception) -> MedtlError:
    """Any error as the one line of a failed cell; ours are such lines already."""
    if isinstance(error, MedtlError):
        return error
    return MedtlError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")


def _subject(
    settings: CompareSettings, plan: Plan, dataset: Dataset, sources: pd.DataFrame
) -> Subject:
    counts = [
        {"split": each.name, "images": each.images, "patients": each.patients, **each.per_class}
        for each in split_facts(dataset)
    ]
    return Subject(
        study=plan.study,
        title=plan.title,
        source=plan.source,
        notes=plan.notes,
        data=dataset.name,
        data_notes=dataset.notes,
        counts=pd.DataFrame(counts),
        sources=sources,
        sheet=contact_sheet(dataset),
        embedded=settings.data in EMBEDDED,
        settings=dataclasses.asdict(settings) | {"fingerprint": dataset.fingerprint},
        pictures=plan.pictures,
    )


def _log(written: Report, cells: pd.DataFrame, sources: pd.DataFrame) -> None:
    mlflow.log_text(written.html, "report/report.html")
    log_table(cells, "report/cells.csv")
    if len(sources):
        log_table(sources, "report/sources.csv")
    mlflow.set_tag("mlflow.note.content", written.description[:TEXT_LIMIT])
