"""MLflow runs: start, name, nesting, and a true final state."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import SqlParam
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from requests.exceptions import RequestException

from medtl.cache import cache_root, content_key
from medtl.data.manifest import EMBEDDED
from medtl.data.printable_names import printable_text
from medtl.data.refused_data import RefusedDataError
from medtl.errors import MedtlError, masked_value
from medtl.settings.fields import Settings, key_values, place_names
from medtl.tracking.addresses import mark_experiment
from medtl.tracking.hidden_tags import hidden_tag, names_of
from medtl.tracking.lineage import SETTINGS_FILE
from medtl.tracking.refused_data_logging import log_refused
from medtl.tracking.relocate import check_in_place
from medtl.tracking.run_ownership import OWNER_TAG, PARENT_TAG, is_orphaned, owner, owner_of
from medtl.tracking.store import (
    ask_only_once,
    check_login,
    current_run,
    is_lost,
    make_tables,
    permission_watched,
    room_watched,
    store_file,
    translate_store_errors,
)


def hide_passwords(run: Run) -> None:
    """Masks passwords in a run's parameters, if the store is a database.

    MLflow has no request that changes a parameter, so it is not possible over a tracking server;
    a line on stderr says so. Either way the password was visible on the command line.
    """
    typed = {name: value for name, value in run.data.params.items() if masked_value(value) != value}
    if not typed:
        return
    sessions = getattr(_get_store(), "ManagedSessionMaker", None)
    if sessions is not None:
        with sessions() as session:
            for name, value in typed.items():
                parameter = session.query(SqlParam).filter_by(run_uuid=run.info.run_id, key=name)
                parameter.update({"value": masked_value(value)})
    healed = "was" if sessions is not None else f"of run {run.info.run_id} was, and stays,"
    print(
        f"warning: the password in {', '.join(typed)} {healed} written down by mlflow run; "
        "give it as PGPASSWORD or in ~/.pgpass instead",
        file=sys.stderr,
    )


ERROR_TAG = "medtl.error"
ASKS_TAG = "mlflow.medtl.asks"  # hidden, on a run of an entry point: key of its settings
SUCCESSOR_TAG = "medtl.successor"  # on an interrupted run: the run that continued its work
STOPPED = "stopped; the same command goes on from here"
DIED = "its worker died; the search goes on"
DRAWN_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # of a run that MLflow named
TEXT_LIMIT = 5000  # most characters of a tag in any store of MLflow

# messages of MLflow on its own tables and threads
logging.getLogger("alembic").setLevel(logging.WARNING)
# a lost store is also raised, as one line
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def tracked_run(kind: str, settings: Settings) -> Iterator[Run]:
    """Yields the run of a command: the one that `mlflow run` created, or a new one.

    Parameters logged by `mlflow run` stay as typed; the others are added, and all settings are in
    the artifact `settings.json`. Interrupted runs with the same settings are closed and linked to
    this one.
    """
    check_login()
    make_tables()
    mlflow.set_system_metrics_sampling_interval(5)
    nested = mlflow.active_run() is not None
    values = _printable_values(settings)
    asks = question_key(kind, settings)
    # created with its tags, so that a run killed at its start has them, too
    tags = {"medtl.kind": kind, OWNER_TAG: owner(), ASKS_TAG: asks}
    with (
        translate_store_errors(),
        permission_watched(),
        mlflow.start_run(nested=nested, tags=tags, log_system_metrics=True) as run,
        error_tagged(),
        permission_watched(),  # again: a later refusal is recorded in the run
        room_watched(),
    ):
        check_in_place(run)
        mark_experiment(run.info.experiment_id)
        _close_predecessors(run, asks)
        hide_passwords(run)
        missing = {name: values[name] for name in values if name not in run.data.params}
        mlflow.log_params(missing)
        mlflow.log_dict(_seen_from_anywhere(values), SETTINGS_FILE)
        yield run
        # again: an interruption on another host is noticed only after a while
        _close_predecessors(run, asks)


def question_key(kind: str, settings: Settings) -> str:
    """Returns the key by which a repeated command finds the runs that were cut off."""
    values, places = _printable_values(settings), place_names(settings)
    return content_key(
        kind,
        {
            name: _place(values[name]) if name in places else values[name]
            for name in key_values(settings)
        },
    )


def _printable_values(settings: Settings) -> dict[str, Any]:
    return {
        name: printable_text(masked_value(value)) if isinstance(value, str) else value
        for name, value in dataclasses.asdict(settings).items()
    }


def name_run(subject: str) -> None:
    """Names the active run KIND SUBJECT, if MLflow chose its name."""
    run = current_run()
    if DRAWN_NAME.fullmatch(run.info.run_name or ""):
        kind = MlflowClient().get_run(run.info.run_id).data.tags["medtl.kind"]
        mlflow.set_tag("mlflow.runName", f"{kind} {subject}")


@contextmanager
def nested_run(
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, object],
    parent: str | None = None,
) -> Iterator[Run]:
    """Yields a run below the active one: a trial of a search, a cell of a study.

    In a worker process without an active run, `parent` is the run that it works for.
    """
    experiment = None if parent is None else MlflowClient().get_run(parent).info.experiment_id
    with (
        mlflow.start_run(
            experiment_id=experiment,
            run_name=name,
            nested=True,
            parent_run_id=parent,
            tags={**tags, OWNER_TAG: owner()},
            log_system_metrics=False,
        ) as run,
        error_tagged(),
    ):
        mlflow.log_params(dict(params))
        yield run


@contextmanager
def error_tagged() -> Iterator[None]:
    """Writes the line of an error into a tag of the active run.

    A run that is stopped by the user or by the scheduler of a cluster ends KILLED.
    """
    try:
        yield
    except RefusedDataError as error:
        told = log_refused(error)
        mlflow.set_tag(ERROR_TAG, str(told)[:TEXT_LIMIT])
        raise told from None
    except MedtlError as error:
        mlflow.set_tag(ERROR_TAG, str(error)[:TEXT_LIMIT])
        raise
    except (MlflowException, RequestException) as error:
        if is_lost(error):
            ask_only_once()
        raise
    except KeyboardInterrupt:
        mlflow.set_tag(ERROR_TAG, STOPPED)
        mlflow.end_run("KILLED")
        raise


def refuse_run(message: str, status: str) -> None:
    """Ends the run that `mlflow run` created, before its work began: FAILED or KILLED.

    Errors of a lost tracking store are ignored.
    """
    client, run_id = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
    with suppress(MlflowException, RequestException):
        hide_passwords(client.get_run(run_id))
        client.set_tag(run_id, ERROR_TAG, message[:TEXT_LIMIT])
        client.set_terminated(run_id, status)


def close_cut_off_run(run_id: str | None, successor: str) -> None:
    """Ends an orphaned run and those nested in it, and links them to their successor.

    A run with a live process is unchanged. A run that was stopped, or that `mlflow run` marked
    FAILED because its process was stopped or killed, is only linked.
    """
    if run_id is None or run_id == successor:
        return
    client = MlflowClient()
    run = client.get_run(run_id)
    nested = client.search_runs(
        [run.info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'",
    )
    for each in nested:
        close_cut_off_run(each.info.run_id, successor)
    if is_orphaned(run):
        client.set_tag(run_id, ERROR_TAG, f"cut off; gone on with in run {successor}")
        client.set_tag(run_id, SUCCESSOR_TAG, successor)
        _close_unfinished_models(run)
        client.set_terminated(run_id, "KILLED")
    elif (
        run.info.status in ("KILLED", "FAILED") and run.data.tags.get(ERROR_TAG, STOPPED) == STOPPED
    ):
        client.set_tag(run_id, SUCCESSOR_TAG, successor)


def _close_predecessors(run: Run, asks: str) -> None:
    """Ends and links interrupted runs with the settings of `run`."""
    for name in names_of(ASKS_TAG):
        found = MlflowClient().search_runs(
            [run.info.experiment_id],
            f"tags.`{name}` = '{asks}' and attributes.status != 'FINISHED'",
        )
        for each in found:
            if SUCCESSOR_TAG not in each.data.tags:
                close_cut_off_run(each.info.run_id, run.info.run_id)


def _close_unfinished_models(run: Run) -> None:
    """Marks models that were being logged by an interrupted run as failed."""
    client = MlflowClient()
    found = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    )
    for model in found:
        if model.status == LoggedModelStatus.PENDING:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def _seen_from_anywhere(values: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with the absolute path of their data, for commands in another folder."""
    data = values.get("data")
    if not data or data in EMBEDDED or not Path(data).expanduser().exists():
        return values
    return values | {"data": os.path.abspath(Path(data).expanduser())}


def _place(value: str) -> str:
    """Returns a path in canonical form; other text unchanged."""
    path = Path(value).expanduser()
    return str(path.resolve()) if value and path.exists() else value


def embedded_storage() -> str:
    """Returns the URL of the Optuna storage beside the tracking store."""
    return f"sqlite:///{store_folder() / 'optuna.db'}"


def store_folder() -> Path:
    """Returns the folder of an SQLite tracking store; the cache folder for a tracking server."""
    file = store_file()
    if file is not None:
        return file.parent
    folder = cache_root().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_dead(run_id: str | None, parent: str, reason: str = DIED) -> None:
    """Ends the run of a dead worker's trial, and orphaned runs in `parent`.

    The study has found the worker dead, on any host. Runs nested in `parent` are closed only if
    their process is gone.
    """
    client = MlflowClient()
    nested = client.search_runs(
        [client.get_run(parent).info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'",
    )
    dead = {run.info.run_id for run in nested if is_orphaned(run)}
    if run_id is not None and client.get_run(run_id).info.status == "RUNNING":
        dead.add(run_id)
    for each in dead:
        client.set_tag(each, ERROR_TAG, reason)
        client.set_tag(each, SUCCESSOR_TAG, parent)
        client.set_terminated(each, "KILLED")


def close_stopped(run_id: str | None, parent: str) -> None:
    """As `close_dead`, for a worker that was stopped with its command."""
    close_dead(run_id, parent, STOPPED)


def succeed_trials(run: Run, study: str, numbers: Collection[int]) -> None:
    """Ends and links the runs of trials whose workers died to the run that repeats them.

    Found by the tags that a trial's run has from its first moment: a worker may have been killed
    before the study knew its run.
    """
    client = MlflowClient()
    repeated = [str(number) for number in numbers]
    found = client.search_runs(
        [run.info.experiment_id],
        f"tags.`medtl.study` = '{study}' and attributes.status != 'FINISHED' "
        f"and tags.`medtl.data` = '{run.data.tags['medtl.data']}'",
    )
    for each in found:
        tags = each.data.tags
        if each.info.run_id == run.info.run_id or tags.get("medtl.trial", "") not in repeated:
            continue
        if each.info.status == "RUNNING":
            client.set_tag(each.info.run_id, ERROR_TAG, DIED)
            client.set_terminated(each.info.run_id, "KILLED")
        client.set_tag(each.info.run_id, SUCCESSOR_TAG, run.info.run_id)


def has_answered(run_id: str, asking: str) -> bool:
    """Returns whether a run has the settings of the run `asking` and is finished."""
    client = MlflowClient()
    try:
        run = client.get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    asked, had = (hidden_tag(each.data.tags, ASKS_TAG) for each in (client.get_run(asking), run))
    return run.info.status == "FINISHED" and had == asked


def was_cut_off(run_id: str) -> bool:
    """Returns whether a run ended early and has no process; False for a deleted run."""
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    return run.info.status in ("KILLED", "FAILED") or is_orphaned(run)


def is_at_work(run_id: str, study: str) -> bool:
    """Returns whether a process of this host works in the run of a study.

    Processes of other hosts cannot be seen; they are unlikely to use an SQLite study of this one.

    Raises:
        MedtlError: the run is not in the tracking store of this process.
    """
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise MedtlError(
            f"study {study} was begun with another tracking store: its run {run_id} is not at "
            f"{masked_value(mlflow.get_tracking_uri())}; set MLFLOW_TRACKING_URI as it was then, "
            "or give another study name"
        ) from error
    here = owner().partition(" ")[0] == owner_of(run).partition(" ")[0]
    return here and run.info.status == "RUNNING" and not is_orphaned(run)
