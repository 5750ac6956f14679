"""Search on a Ray cluster: the command samples and prunes, the nodes train.

Only the command's process opens the study, so that it may be in SQLite. A worker keeps data and
networks in memory between trials; it reports each epoch and waits for the answer of the pruner.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import mlflow
import optuna
import ray
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

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
from medtl.imaging.rendering import Rendering
from medtl.pipeline.setup import training_data
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import close_dead
from medtl.training.loop import Epoch
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool
from medtl.tuning.search_space import AnyCandidate
from medtl.tuning.storage import SingleWorker, Store, is_shared
from medtl.tuning.study import Pruned, Schedule
from medtl.tuning.trials import TrialSpec, run_trial, trial_spec


@dataclass(frozen=True)
class TrialOrder:
    """Arguments of a worker."""

    settings: TuneSettings
    run_id: str  # parent MLflow run of its trials
    tracking_uri: str
    seen: tuple[str, ...]  # fingerprints of the data and of each backbone, equal on every node
    datasets: Mapping[Rendering, ray.ObjectRef] | None  # None to read them on the node


@dataclass(frozen=True)
class Ended:
    """Result of a trial: a score, or the reason why there is none."""

    valid_auroc: float = 0.0
    pruned: str = ""
    error: str = ""


class TrialWorker:
    """Runs trials on a node, one after the other."""

    def __init__(self, order: TrialOrder) -> None:
        """Keeps the order; `open` does the work."""
        self._order = order
        self._reports: SimpleQueue[str | Epoch | None] = SimpleQueue()
        self._answers: SimpleQueue[str] = SimpleQueue()

    def open(self) -> str:
        """Opens data and networks; returns '' or an error message."""
        order = self._order
        try:
            enter_node(order.settings, order.tracking_uri, order.run_id)
            if order.datasets is None:
                self._backbone_pool = BackbonePool.open(order.settings, _read)
            else:
                self._backbone_pool = BackbonePool.open(
                    order.settings, self._fetched, self._fetched
                )
            if _seen(self._backbone_pool) != order.seen:
                raise MedtlError("data or weights are other ones than where the search was begun")
        except MedtlError as error:
            return named_here(error)
        return ""

    def run(self, spec: TrialSpec) -> Ended:
        """Runs a trial; `next_report` returns its progress meanwhile."""

        def on_epoch(epoch: Epoch) -> None:
            self._reports.put(epoch)
            reason = self._answers.get()
            if reason:
                raise Pruned(reason)

        try:
            transfer = self._backbone_pool.transfer(self._backbone_pool.of(spec.candidate))
            score = run_trial(spec, transfer, self._order.run_id, self._reports.put, on_epoch)
        except Pruned as reason:
            return Ended(pruned=str(reason))
        except (MedtlError, MemoryError, RuntimeError) as error:
            return Ended(error=named_here(error))
        finally:
            self._reports.put(None)
        return Ended(score)

    def next_report(self) -> str | Epoch | None:
        """Waits for the next report of the trial: its run id, an epoch, or None at its end."""
        return self._reports.get()

    def answer(self, stop: str) -> None:
        """Answers the report of an epoch: the reason to stop, '' to continue."""
        self._answers.put(stop)

    def notes(self) -> dict[str, str]:
        """Returns the decisions on caching activations, by cut."""
        return self._backbone_pool.notes

    def _fetched(self, settings: TuneSettings, rendering: Rendering, _: str = "") -> Dataset:
        datasets = self._order.datasets
        assert datasets is not None
        return ray.get(datasets[rendering])


class Threads(SingleWorker):
    """Coordinates the threads of one process on a study."""

    def __init__(self) -> None:
        """Creates the lock of this process."""
        self._lock, self._over = threading.Lock(), threading.Event()

    @contextmanager
    def asking(self, study: optuna.Study) -> Iterator[None]:
        """Holds the lock while a trial is taken."""
        with self._lock:
            yield

    def end(self, study: optuna.Study) -> None:
        """Stops the search: no thread starts another trial."""
        self._over.set()

    def ended(self, study: optuna.Study) -> bool:
        """Returns whether the search was stopped."""
        return self._over.is_set()


def run_on_cluster(
    settings: TuneSettings,
    backbone_pool: BackbonePool,
    study: optuna.Study,
    store: Store,
    schedule: Schedule,
    run_id: str,
    on_look: Callable[[], None],
) -> None:
    """Runs trials on `settings.workers` workers of the cluster until none is left.

    If a worker or its node dies, its trial is queued again and its run closed.

    Raises:
        MedtlError: no worker is left.
    """
    began, stopping = time.monotonic(), threading.Event()
    coordinator = store.coordinator if is_shared(store.url) else Threads()
    order, notes = _order(settings, backbone_pool, run_id), {}

    def work(worker: Worker) -> None:
        left = schedule.timeout and max(0.1, schedule.timeout - (time.monotonic() - began))
        own = studies.join_study(store, study.study_name, schedule)

        def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
            try:
                return _run_remotely(worker, trial_spec(own, trial, candidate), trial)
            except ray.exceptions.RayError:
                requeue(own, trial.number)
                raise

        studies.run_trials(
            own,
            backbone_pool.space,
            dataclasses.replace(schedule, timeout=left),
            objective,
            coordinator=coordinator,
            on_dead=on_dead,
        )
        notes.update(ray.get(worker.notes.remote()))

    def requeue(own: optuna.Study, number: int) -> None:
        with coordinator.asking(own):
            if own.get_trials(deepcopy=False)[number].state != TrialState.RUNNING:
                return  # it was failed before as dead, and queued again
            dead = own.tell(number, state=TrialState.FAIL)
            if not studies.queue_again(own, dead, 0 if stopping.is_set() else 1):
                print(f"trial {number} is given up: too many workers died over it")
        on_dead(dead)

    def on_dead(trial: FrozenTrial) -> None:
        close_dead(trial.user_attrs.get(studies.RUN_ID), run_id)

    run_workers(
        settings.workers,
        begin=lambda: begun_worker(TrialWorker, order, settings),
        work=work,
        is_left=lambda: not studies.is_over(study, schedule, coordinator),
        on_look=on_look,
        stopping=stopping,
    )
    for place, note in notes.items():
        print(f"activations at {place}: {note}", file=sys.stderr)


def _order(settings: TuneSettings, backbone_pool: BackbonePool, run_id: str) -> TrialOrder:
    datasets = None
    if settings.ship == "store":
        datasets = {each: shipped(dataset) for each, dataset in backbone_pool.datasets.items()}
    # `auto` depends on the data, which a node may not have
    architectures = ",".join(dict.fromkeys(each.architecture for each in backbone_pool.all))
    settings = dataclasses.replace(
        settings, data=everywhere(settings.data), architecture=architectures
    )
    return TrialOrder(settings, run_id, mlflow.get_tracking_uri(), _seen(backbone_pool), datasets)


def _run_remotely(worker: Worker, spec: TrialSpec, trial: optuna.Trial) -> float:
    """Runs a trial on a worker, and returns its score.

    Raises:
        Pruned: the pruner ended it.
        MedtlError: it failed.
        RayError: the worker or its node died.
    """
    ended, stop = worker.run.remote(spec), None
    while (message := ray.get(worker.next_report.remote())) is not None:
        if isinstance(message, str):
            trial.set_user_attr(studies.RUN_ID, message)
            continue
        try:
            studies.report(trial, message)
        except (Pruned, UpdateFinishedTrialError) as reason:
            stop = reason
        worker.answer.remote("" if stop is None else str(stop) or "taken over by another worker")
    found: Ended = ray.get(ended)
    if stop is not None:
        raise stop
    if found.error:
        raise MedtlError(found.error)
    return found.valid_auroc


def _seen(backbone_pool: BackbonePool) -> tuple[str, ...]:
    return (backbone_pool.dataset.fingerprint, *(each.backbone for each in backbone_pool.all))


def _read(settings: TuneSettings, rendering: Rendering, _: str) -> Dataset:
    """Reads the data without logging it, which the command has done."""
    return training_data(settings, rendering)
