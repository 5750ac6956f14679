"""A study on a Ray cluster: each cell a task, and what it came to comes back."""

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

from medtl.comparison.cell_runs import cut_off_cell
from medtl.comparison.design import Cell, Plan
from medtl.comparison.learning_rates import ChosenRates
from medtl.comparison.runner import Cells, SharedResources
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
from medtl.pipeline.setup import training_data
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import LearningSettings
from medtl.tracking.runs import close_dead

MOST_DEATHS = 3  # of workers over one cell, before it is given up


@dataclass(frozen=True)
class CellOrder:
    """What a worker is made of."""

    settings: CompareSettings
    plan: Plan
    run_id: str  # the study's MLflow run
    tracking_uri: str
    fingerprint: str  # of the data, which the nodes must see too
    datasets: Mapping[int, ray.ObjectRef] | None  # by image size; None to read them on the node


class CellWorker:
    """Runs cells on a node, one after the other."""

    def __init__(self, order: CellOrder) -> None:
        self._order = order

    def open(self) -> str:
        """Opens the data; '', or why that cannot be done here."""
        order = self._order
        try:
            enter_node(order.settings, order.tracking_uri, order.run_id)
            read = training_data if order.datasets is None else self._fetched
            bench = SharedResources(order.settings, order.plan, read)
            dataset = bench.dataset(order.plan.cells)
            if dataset.fingerprint != order.fingerprint:
                raise MedtlError("the data is another one than where the study was begun")
            self._cells = Cells(order.plan, bench, dataset, order.settings.seed, order.run_id)
        except MedtlError as error:
            return named_here(error)
        return ""

    def run(self, cell: Cell, rates: ChosenRates) -> tuple[CellResult, bool]:
        """What the cell came to, or why it failed; and whether that was known from before."""
        known = self._cells.reused
        cell_result = self._cells.cell_result(cell, rates)
        return cell_result, self._cells.reused > known

    def _fetched(self, settings: LearningSettings, image_size: int) -> Dataset:
        return ray.get(self._order.datasets[image_size])


def run_on_cluster(
    settings: CompareSettings, plan: Plan, bench: SharedResources, cells: Cells, run_id: str
) -> tuple[dict[Cell, CellResult], int]:
    """What each cell came to, or why it failed; and how many were known from before.

    A cell whose worker died is run again by another, and shown as failed when that was the third.

    Raises:
        MedtlError: no worker is left.
    """
    rates = ChosenRates()
    waiting, done, deaths = _Waiting(cells.ordered(), rates), {}, Counter()
    known: list[Cell] = []
    order, stopping = _order(settings, plan, bench, run_id), threading.Event()

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
        close_dead(cut_off_cell(cells.names[cell], run_id), run_id)
        if deaths[cell] < MOST_DEATHS:
            waiting.put_back(cell)
            return
        done[cell] = cells.failed(cell, f"{MOST_DEATHS} workers died over it")
        waiting.end(cell)

    with tqdm(total=len(plan.cells), unit="cell", desc=plan.study, file=sys.stderr) as bar:
        run_workers(
            settings.workers,
            begin=lambda: begun_worker(CellWorker, order, settings),
            work=work,
            is_left=waiting.is_left,
            on_look=lambda: bar.update(len(done) - bar.n),
            stopping=stopping,
        )
    return done, len(known)


class _Waiting:
    """Cells that wait for a worker; each worker stays with the backbone that it has open.

    While the first cell of an arm chooses its learning rate, the repeats wait.
    """

    def __init__(self, cells: Sequence[Cell], rates: ChosenRates) -> None:
        self._cells, self._rates = list(cells), rates
        self._running: list[Cell] = []
        self._changed = threading.Condition()

    def next_after(self, last: Cell | None) -> Cell | None:
        """The cell to run after `last`; waits while all run elsewhere, None when all have ended."""
        with self._changed:
            while not (ready := self._ready()):
                if not self._running:
                    return None
                self._changed.wait()
            busy = {_backbone(cell) for cell in self._running}
            own = None if last is None else _backbone(last)
            # its own backbone, else one that nobody has open, else any
            cell = min(ready, key=lambda each: (_backbone(each) != own, _backbone(each) in busy))
            self._cells.remove(cell)
            self._running.append(cell)
            return cell

    def _ready(self) -> list[Cell]:
        return [cell for cell in self._cells if not self._rates.waits(cell, self._running)]

    def put_back(self, cell: Cell) -> None:
        """The cell waits again."""
        with self._changed:
            self._running.remove(cell)
            self._cells.insert(0, cell)
            self._changed.notify_all()

    def end(self, cell: Cell) -> None:
        """The cell has ended."""
        with self._changed:
            self._running.remove(cell)
            self._changed.notify_all()

    def is_left(self) -> bool:
        """Whether a cell has not ended."""
        with self._changed:
            return bool(self._cells or self._running)


def _backbone(cell: Cell) -> tuple[str, str]:
    return cell.architecture, cell.weights


def _order(settings: CompareSettings, plan: Plan, bench: SharedResources, run_id: str) -> CellOrder:
    sizes = set()
    for cell in plan.cells:
        # backbones that have to be pretrained are, before workers could do so at once; those that
        # cannot be had are found out by their cells again
        with contextlib.suppress(MedtlError):
            sizes.add(bench.origin(cell).image_size)
    datasets = None
    if settings.ship == "store":
        datasets = {size: shipped(bench.data(size)) for size in sizes}
    fingerprint = bench.data(min(sizes)).fingerprint
    settings = dataclasses.replace(settings, data=everywhere(settings.data))
    return CellOrder(settings, plan, run_id, mlflow.get_tracking_uri(), fingerprint, datasets)
