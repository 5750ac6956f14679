"""Worker processes of a search on this machine."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections.abc import Callable

import mlflow
import optuna

from medtl.distributed.resources import cores, gpus, shares
from medtl.distributed.worker_processes import run_processes
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import close_dead, close_stopped
from medtl.tuning import study as studies
from medtl.tuning.storage import Store
from medtl.tuning.study import Schedule
from medtl.tuning.trials import Work, work


def run_crew(
    settings: TuneSettings,
    study: optuna.Study,
    store: Store,
    schedule: Schedule,
    run_id: str,
    on_look: Callable[[], None],
) -> None:
    """Runs trials in `settings.workers` processes until none is left; `on_look` is called often.

    The trial of a worker that dies is queued again at once, and its MLflow run closed.

    Raises:
        MedtlError: all workers and their successors have died.
    """
    began = time.monotonic()

    def new_task() -> Work:
        timeout = schedule.timeout and max(0.1, schedule.timeout - (time.monotonic() - began))
        return Work(
            name=uuid.uuid4().hex,
            settings=settings,
            schedule=dataclasses.replace(schedule, timeout=timeout),
            storage=store.url,
            study=study.study_name,
            run_id=run_id,
            tracking_uri=mlflow.get_tracking_uri(),
        )

    def requeue(task: Work, deaths: int, close: Callable[[str | None, str], None]) -> None:
        with store.coordinator.asking(study):
            for trial in store.coordinator.dead_with(study, task.name):
                if not studies.queue_again(study, trial, deaths):
                    print(f"trial {trial.number} is given up: too many workers died over it")
                close(trial.user_attrs.get(studies.RUN_ID), run_id)
        close(None, run_id)

    run_processes(
        work,
        new_task,
        shares(settings.workers, cores(), gpus(settings.device)),
        is_left=lambda: not studies.is_over(study, schedule, store.coordinator),
        on_death=lambda task: requeue(task, 1, close_dead),
        on_stop=lambda task: requeue(task, 0, close_stopped),
        on_look=on_look,
    )
