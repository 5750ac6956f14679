"""Runs the cells of a study on the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlflow
import ray
from ray.exceptions import RayError
from tqdm import tqdm

from medtl.comparison.cell_runs import unfinished_cell_run
from medtl.comparison.cells import Cells
from medtl.comparison.design import Cell, Plan
from medtl.comparison.learning_rates import ChosenRates
from medtl.comparison.runner import SharedResources
from medtl.data.dataset import Dataset
from medtl.distributed.ray_cluster import (
    Worker,
    begun_worker,
    enter_node,
    everywhere,
    named_here,
    run_workers,
    shipped,
)
from medtl.errors import MedtlError
from medtl.evaluation.model_comparison import CellResult
from medtl.imaging.rendering import Rendering
from medtl.pipeline.setup import training_data
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import LearningSettings
from medtl.tracking.runs import close_dead

MOST_DEATHS = 3  # of workers while they run one cell, before it counts as failed


@dataclass(frozen=True)
class WorkerSpec:
    """Settings, plan and data of a worker, sent to its node."""

    settings: CompareSettings
    plan: Plan
    run_id: str  # the study's MLflow run
    tracking_uri: str
    fingerprint: str  # of the data; that on the node must have the same
    datasets: Mapping[Rendering, ray.ObjectRef] | None  # None to read them on the node


class CellWorker:
    """Runs cells on a node, one after the other."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def open(self) -> str:
        """Opens the data; returns '', or the reason why it cannot be opened here."""
        spec = self._spec
        try:
            enter_node(spec.settings, spec.tracking_uri, spec.run_id)
            read = training_data if spec.datasets is None else self._fetched
            resources = SharedResources(spec.settings, spec.plan, read)
            dataset = resources.dataset(spec.plan.cells)
            if dataset.fingerprint != spec.fingerprint:
                raise MedtlError("the data differs from that of the process that began the study")
            self._cells = Cells(spec.plan, resources, dataset, spec.settings.seed, spec.run_id)
        except MedtlError as error:
            return named_here(error)
        return ""

    def run(self, cell: Cell, rates: ChosenRates) -> tuple[CellResult, bool]:
        """Returns the result of a cell, and whether it was found in an earlier run."""
        known = self._cells.reused
        cell_result = self._cells.cell_result(cell, rates)
        return cell_result, self._cells.reused > known

    def _fetched(self, settings: LearningSettings, rendering: Rendering) -> Dataset:
        assert self._spec.datasets is not None
        return ray.get(self._spec.datasets[rendering])


def run_on_cluster(
    settings: CompareSettings, plan: Plan, resources: SharedResources, cells: Cells, run_id: str
) -> tuple[dict[Cell, CellResult], int]:
    """Returns the result of each cell, and how many were found in earlier runs.

    A cell whose worker died is run again by another; after the third death it counts as failed.

    Raises:
        MedtlError: no worker is left.
    """
    rates = ChosenRates()
    waiting = _CellQueue(cells.ordered(), rates)
    done: dict[Cell, CellResult] = {}
    deaths: Counter[Cell] = Counter()
    known: list[Cell] = []
    spec, stopping = _worker_spec(settings, plan, resources, run_id), threading.Event()

    def work(worker: Worker) -> None:
        cell = None
        while (cell := waiting.next_after(cell)) is not None:
            try:
                cell_result, was_known = ray.get(worker.run.remote(cell, rates))
            except RayError:
                requeue(cell)
                raise
            done[cell] = cell_result
            rates.add(cell, cell_result)
            known.extend([cell] if was_known else [])
            waiting.end(cell)

    def requeue(cell: Cell) -> None:
        deaths[cell] += 1
        close_dead(unfinished_cell_run(cells.names[cell], run_id), run_id)
        if deaths[cell] < MOST_DEATHS:
            waiting.put_back(cell)
            return
        done[cell] = cells.failed(cell, f"{MOST_DEATHS} workers died while they ran it")
        waiting.end(cell)

    with tqdm(total=len(plan.cells), unit="cell", desc=plan.study, file=sys.stderr) as bar:

        def show_progress() -> None:
            bar.update(len(done) - bar.n)

        run_workers(
            settings.workers,
            begin=lambda: begun_worker(CellWorker, spec, settings),
            work=work,
            is_left=waiting.is_left,
            on_look=show_progress,
            stopping=stopping,
        )
    return done, len(known)


class _CellQueue:
    """Queue of cells; a worker gets cells of the backbone that it has loaded, as long as any wait.

    While the learning rate of an arm is chosen in its first cell, the repeats wait.
    """

    def __init__(self, cells: Sequence[Cell], rates: ChosenRates) -> None:
        self._cells, self._rates = list(cells), rates
        self._running: list[Cell] = []
        self._changed = threading.Condition()

    def next_after(self, last: Cell | None) -> Cell | None:
        """Waits for the cell to run after `last` and returns it; None after the last one."""
        with self._changed:
            while not (ready := self._ready()):
                if not self._running:
                    return None
                self._changed.wait()
            busy = {_backbone(cell) for cell in self._running}
            own = None if last is None else _backbone(last)
            # the same backbone, else one that no other worker has loaded, else any
            cell = min(ready, key=lambda each: (_backbone(each) != own, _backbone(each) in busy))
            self._cells.remove(cell)
            self._running.append(cell)
            return cell

    def _ready(self) -> list[Cell]:
        return [cell for cell in self._cells if not self._rates.waits(cell, self._running)]

    def put_back(self, cell: Cell) -> None:
        """Puts a running cell back at the front of the queue."""
        with self._changed:
            self._running.remove(cell)
            self._cells.insert(0, cell)
            self._changed.notify_all()

    def end(self, cell: Cell) -> None:
        """Marks a running cell as ended."""
        with self._changed:
            self._running.remove(cell)
            self._changed.notify_all()

    def is_left(self) -> bool:
        """Returns whether any cell is queued or running."""
        with self._changed:
            return bool(self._cells or self._running)


def _backbone(cell: Cell) -> tuple[str, str]:
    return cell.architecture, cell.weights


def _worker_spec(
    settings: CompareSettings, plan: Plan, resources: SharedResources, run_id: str
) -> WorkerSpec:
    renderings = set()
    for cell in plan.cells:
        # Pretrains backbones here, so that not every worker does. An unavailable one is reported
        # by its cells.
        with contextlib.suppress(MedtlError):
            renderings.add(resources.origin(cell).rendering)
    datasets = None
    if settings.ship == "store":
        datasets = {each: shipped(resources.data(each)) for each in renderings}
    smallest = min(renderings, key=lambda each: each.image_size)
    fingerprint = resources.data(smallest).fingerprint
    settings = dataclasses.replace(settings, data=everywhere(settings.data))
    return WorkerSpec(settings, plan, run_id, mlflow.get_tracking_uri(), fingerprint, datasets)
