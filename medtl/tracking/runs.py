"""MLflow runs: started, named, nested, and ended in a true state."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
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
from medtl.data.printable_names import printable_text
from medtl.data.refused_data import RefusedDataError
from medtl.errors import MedtlError, masked_value
from medtl.settings.fields import Settings, key_values, place_names
from medtl.tracking.lineage import SETTINGS_FILE
from medtl.tracking.refusal_logging import log_refused
from medtl.tracking.relocate import check_in_place
from medtl.tracking.run_ownership import OWNER_TAG, PARENT_TAG, is_orphaned, owner
from medtl.tracking.store import (
    ask_only_once,
    check_login,
    is_lost,
    make_tables,
    permission_watched,
    room_watched,
    store_file,
    translate_store_errors,
)


def hide_passwords(run: Run) -> None:
    """Masks the passwords in a run's parameters, where the store lies open to this process.

    MLflow itself never changes a parameter. Over a tracking server it cannot be done, and the
    line on stderr says so. Either way the password has stood on the command line.
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
ASKS_TAG = "medtl.asks"  # on a run of an entry point: key of what was asked
SUCCESSOR_TAG = "medtl.successor"  # on a run that was cut off: the run that went on with its work

# MLflow tells of its own tables and threads at INFO; what a user must know comes as a warning
logging.getLogger("alembic").setLevel(logging.WARNING)
# that a store is lost is raised as well, and said in one line
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
DRAWN_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # as MLflow names a run that was given no name
TEXT_LIMIT = 5000  # characters a tag of MLflow may have on every store
STOPPED = "stopped; the same command goes on from here"


@contextmanager
def tracked_run(kind: str, settings: Settings) -> Iterator[Run]:
    """The run of a job: the one `mlflow run` handed over, or a new one (under an active one).

    Parameters already logged by `mlflow run` stay as the user typed them; the others are added,
    and the settings as they were resolved stand in the artifact `settings.json`. What a killed
    process left of the same question is closed, and linked to this run.
    """
    check_login()
    make_tables()
    mlflow.set_system_metrics_sampling_interval(5)
    nested = mlflow.active_run() is not None
    values = _printable_values(settings)
    asks = question_key(kind, settings)
    # tags are given with the run: one that is killed as it begins has them too
    tags = {"medtl.kind": kind, OWNER_TAG: owner(), ASKS_TAG: asks}
    with (
        translate_store_errors(),
        permission_watched(),
        mlflow.start_run(nested=nested, tags=tags, log_system_metrics=True) as run,
        error_tagged(),
        permission_watched(),  # again: what is refused later is to stand in the run
        room_watched(),
    ):
        check_in_place(run)
        _close_predecessors(run, asks)
        hide_passwords(run)
        missing = {name: values[name] for name in values if name not in run.data.params}
        mlflow.log_params(missing)
        mlflow.log_dict(values, SETTINGS_FILE)
        yield run
        # again: what was cut off on another host is known to be so only after a while
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
    """Names the active run KIND SUBJECT, where it has no name but the one that MLflow drew."""
    run = mlflow.active_run()
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
    """A run under the one now active: a trial of a search, a cell of a study.

    In a process without an active run, `parent` is the run of the process that this one works for.
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
    """Writes the one line of an error that passes through into the active run's tag.

    A run that the user, or the scheduler of a cluster, stops ends KILLED.
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
    """Ends the run that `mlflow run` handed over when no work was begun in it: FAILED or KILLED.

    A tracking store that was lost is told nothing.
    """
    client, run_id = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
    with suppress(MlflowException, RequestException):
        hide_passwords(client.get_run(run_id))
        client.set_tag(run_id, ERROR_TAG, message[:TEXT_LIMIT])
        client.set_terminated(run_id, status)


def close_cut_off_run(run_id: str | None, successor: str) -> None:
    """Ends a run that a killed process left RUNNING, and those nested in it; links them.

    A run whose process lives is left alone. Nested ones are found by their parent: one that was
    killed as it began is known by no other. A run that was stopped, or that `mlflow run` called
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
    """Ends and links what killed processes left of a question that `run` now asks again."""
    found = MlflowClient().search_runs(
        [run.info.experiment_id],
        f"tags.`{ASKS_TAG}` = '{asks}' and attributes.status != 'FINISHED'",
    )
    for each in found:
        if SUCCESSOR_TAG not in each.data.tags:
            close_cut_off_run(each.info.run_id, run.info.run_id)


def _close_unfinished_models(run: Run) -> None:
    """Models that were being logged when their run was cut off are shown as failed."""
    client = MlflowClient()
    found = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"
    )
    for model in found:
        if model.status == LoggedModelStatus.PENDING:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)


def _place(value: str) -> str:
    """Returns a path in canonical form; other text unchanged."""
    path = Path(value).expanduser()
    return str(path.resolve()) if value and path.exists() else value


def embedded_storage() -> str:
    """The Optuna storage that lies beside the tracking store, so that both are kept or lost."""
    return f"sqlite:///{store_folder() / 'optuna.db'}"


def store_folder() -> Path:
    """The folder that an SQLite tracking store lies in.

    With a tracking server there is no such place: it is then the folder of all that is kept.
    """
    file = store_file()
    if file is not None:
        return file.parent
    folder = cache_root().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


DIED = "its worker died; the search goes on"


def close_dead(run_id: str | None, parent: str, reason: str = DIED) -> None:
    """Ends what a dead worker left RUNNING: the run of its trial, and what was cut off in `parent`.

    The worker was found dead by the study, wherever it was; of the runs nested in `parent` only
    those are closed whose process is gone. One that was killed as its run began is known by no
    other sign.
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
    """As `close_dead`, of a worker that was stopped with the command that it worked for."""
    close_dead(run_id, parent, STOPPED)


def link_successor(run_id: str | None, successor: str) -> None:
    """Links the run of a trial that was cut off to the run that does its work again."""
    if run_id is not None:
        MlflowClient().set_tag(run_id, SUCCESSOR_TAG, successor)


def has_answered(run_id: str, asking: str) -> bool:
    """Returns whether a run with the settings of the run `asking` has ended well."""
    client = MlflowClient()
    try:
        run = client.get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    asked = client.get_run(asking).data.tags[ASKS_TAG]
    return run.info.status == "FINISHED" and run.data.tags.get(ASKS_TAG) == asked


def was_cut_off(run_id: str) -> bool:
    """Whether a run did not come to its end, and nobody works in it; False where there is none."""
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException:  # it was deleted
        return False
    return run.info.status in ("KILLED", "FAILED") or is_orphaned(run)


def is_at_work(run_id: str, study: str) -> bool:
    """Whether a process of this host works in the run of a study.

    Of another host it cannot be seen; that one works in an SQLite study here is not likely.

    Raises:
        MedtlError: the run is not where this process tracks its own.
    """
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise MedtlError(
            f"study {study} was begun with another tracking store: its run {run_id} is not at "
            f"{masked_value(mlflow.get_tracking_uri())}; set MLFLOW_TRACKING_URI as it was then, "
            "or give another study name"
        ) from error
    here = owner().partition(" ")[0] == run.data.tags.get(OWNER_TAG, "").partition(" ")[0]
    return here and run.info.status == "RUNNING" and not is_orphaned(run)
