"""Compare: a study as a run, each of its cells as a run below it, and the report of all."""

from __future__ import annotations

import contextlib
import dataclasses
import sys

import mlflow
import pandas as pd

from medtl.comparison.cells import Cells
from medtl.comparison.design import Plan
from medtl.comparison.learning_rates import ChosenRates
from medtl.comparison.plan_checks import checked_plan
from medtl.comparison.runner import SharedResources
from medtl.comparison.simple_baselines import baselines_beside
from medtl.comparison.source_distance import source_distances
from medtl.comparison.study_registry import plan_of
from medtl.data.dataset import Dataset
from medtl.data.manifest import EMBEDDED, data_name
from medtl.distributed.executor import executor
from medtl.errors import MedtlError
from medtl.evaluation.model_comparison import CellResult, Comparison, compared
from medtl.pipeline.finalize import split_facts
from medtl.pipeline.model_and_data import check_one_label
from medtl.pipeline.run_logging import announce, contact_sheet, log_data
from medtl.progress import progress
from medtl.reporting.comparison_report import Report, Subject, report
from medtl.settings.comparison import CompareSettings
from medtl.settings.execution import RAY
from medtl.tracking.addresses import run_addresses
from medtl.tracking.artifacts import log_table
from medtl.tracking.runs import TEXT_LIMIT, name_run, tracked_run
from medtl.training.device import resolve_device, resolve_precision


def compare(settings: CompareSettings) -> None:
    """Runs a study, or goes on with it, and writes its report and its table.

    A cell that fails is shown as such. The validation split chooses each cell's epoch, and of
    several learning rates each arm's; the test split is scored once a cell.

    Raises:
        ParameterError: a parameter is wrong.
        MedtlError: the data cannot be trained on, or every cell failed.
    """
    with tracked_run("compare", settings) as run, executor(settings):
        plan = plan_of(settings)
        asked, plan = plan, checked_plan(settings, plan)
        if settings.folds:
            plan = _on_folds(settings, plan)
        for note in plan.notes[len(asked.notes) :]:
            print(note, file=sys.stderr)
        settings = dataclasses.replace(settings, data=plan.data or settings.data)
        mlflow.set_tag("medtl.study", plan.study)
        announce("compare", plan.study, data_name(settings.data), f"{len(plan.cells)} cells")
        bench = SharedResources(settings, plan)
        dataset = bench.dataset(plan.cells)
        check_one_label(dataset, "compare")
        dataset = log_data(dataset)
        name_run(f"{plan.study} {dataset.name}")
        mlflow.set_tag("medtl.data", dataset.fingerprint)
        cells = Cells(plan, bench, dataset, settings.seed, run.info.run_id)
        cell_results, reused = _cell_results(settings, plan, bench, cells, run.info.run_id)
        finished = sum(each.outcome is not None for each in cell_results)
        mlflow.log_metrics(
            {"cells": len(cell_results), "failed_cells": len(cell_results) - finished}
        )
        if not finished:
            raise MedtlError(f"every cell of the study failed; the first: {cell_results[0].error}")
        names = cells.names
        comparison = compared(
            cells.cases,
            cell_results,
            [(names[a], names[b]) for a, b in plan.pairs],
            plan.metric,
            settings.seed,
        )
        baselines = baselines_beside(
            bench, cells.ordered(), cell_results, cells.cases, plan.metric, settings.seed
        )
        comparison = dataclasses.replace(comparison, baselines=baselines)
        sources = source_distances(bench, plan.cells)
        for note in bench.notes:
            print(f"sources       {note}", file=sys.stderr)
        plan = dataclasses.replace(plan, notes=(*plan.notes, *bench.notes))
        written = report(_subject(settings, plan, bench, dataset, sources), comparison)
        _log(written, comparison, sources)
    print(f"study         {plan.study}: {finished} of {len(cell_results)} cells")
    if reused:
        print(f"going on      {reused} of them were known from before")
    print(written.summary)
    print("\n".join(run_addresses(run.info.run_id)))


def _on_folds(settings: CompareSettings, plan: Plan) -> Plan:
    """Notes that cells are cross-validated."""
    note = (
        f"folds={settings.folds}: each cell is trained once a fold; its test scores and the "
        "differences are out-of-fold, of each case outside the test split by the model that has "
        "not seen it"
    )
    return dataclasses.replace(plan, notes=(*plan.notes, note))


def _cell_results(
    settings: CompareSettings, plan: Plan, bench: SharedResources, cells: Cells, run_id: str
) -> tuple[list[CellResult], int]:
    """Returns all cells, in the plan's order, and how many of them were known from before."""
    if settings.executor == RAY:
        from medtl.comparison.ray_cells import run_on_cluster

        done, reused = run_on_cluster(settings, plan, bench, cells, run_id)
    else:
        ordered = cells.ordered()
        bar = progress(ordered, len(ordered), plan.study, unit="cell")
        done, rates = {}, ChosenRates()
        for cell in bar:
            done[cell] = cells.cell_result(cell, rates)
            rates.add(cell, done[cell])
        reused = cells.reused
    return [done[cell] for cell in plan.cells], reused


def _subject(
    settings: CompareSettings,
    plan: Plan,
    bench: SharedResources,
    dataset: Dataset,
    sources: pd.DataFrame,
) -> Subject:
    counts = [
        {
            "split": each.name,
            "images": each.images,
            "patients": each.patients_text(),
            **each.per_class,
        }
        for each in split_facts(dataset)
    ]
    return Subject(
        study=plan.study,
        title=plan.title,
        source=plan.source,
        notes=plan.notes,
        data=dataset.name,
        data_notes=dataset.notes,
        warnings=dataset.warnings,
        counts=pd.DataFrame(counts),
        sources=sources,
        sheet=contact_sheet(dataset),
        embedded=settings.data in EMBEDDED,
        settings=dataclasses.asdict(settings) | {"fingerprint": dataset.fingerprint},
        resolved=_resolved(settings, plan, bench),
        pictures=plan.pictures,
    )


def _resolved(settings: CompareSettings, plan: Plan, bench: SharedResources) -> dict[str, object]:
    """Returns the values that `auto` and 0 stand for; those of a cluster's nodes are unknown."""
    sizes: dict[int, None] = {}
    for cell in plan.cells:
        with contextlib.suppress(MedtlError):  # its own line says why it failed
            sizes[bench.origin(cell).image_size] = None
    resolved: dict[str, object] = {"image_size": ", ".join(map(str, sizes))}
    if not settings.patience:
        resolved["patience"] = "by the number of epochs"
    if settings.executor != RAY:
        device = resolve_device(settings.device)
        resolved |= {
            "device": device.type,
            "precision": resolve_precision(settings.precision, device),
        }
    return resolved


def _log(written: Report, comparison: Comparison, sources: pd.DataFrame) -> None:
    mlflow.log_text(written.html, "report/report.html")
    log_table(comparison.table(), "report/cells.csv")
    if comparison.baselines.references:
        log_table(comparison.baselines.table(), "report/baselines.csv")
    if len(rates := comparison.rates()):
        log_table(rates, "report/rates.csv")
    if len(sources):
        log_table(sources, "report/sources.csv")
    mlflow.set_tag("mlflow.note.content", written.description[:TEXT_LIMIT])
