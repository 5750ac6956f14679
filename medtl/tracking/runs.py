"""MLflow runs: started where `mlflow run` or the user wants them, ended in a true state."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.keep import cache_root
from medtl.options import Settings
from medtl.tracking.origin import SETTINGS_FILE

ERROR_TAG = "medtl.error"
PARENT_TAG = "mlflow.parentRunId"
SUCCESSOR_TAG = "medtl.successor"  # on a run that was cut off: the run that went on with its work

# MLflow tells of its own tables and threads at INFO; what a user must know comes as a warning
for _name in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
DRAWN_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")  # as MLflow names a run that was given no name
TEXT_LIMIT = 5000  # characters a tag of MLflow may have on every store


@contextmanager
def tracked_run(kind: str, settings: Settings) -> Iterator[Run]:
    """The run of a job: the one `mlflow run` handed over, or a new one (under an active one).

    Parameters already logged by `mlflow run` stay as the user typed them; the others are added,
    and the settings as they were resolved stand in the artifact `settings.json`.
    """
    mlflow.set_system_metrics_sampling_interval(5)
    nested = mlflow.active_run() is not None
    with mlflow.start_run(nested=nested, log_system_metrics=True) as run:
        mlflow.set_tag("medtl.kind", kind)
        values = dataclasses.asdict(settings)
        missing = {name: values[name] for name in values if name not in run.data.params}
        mlflow.log_params(missing)
        mlflow.log_dict(values, SETTINGS_FILE)
        with error_tagged():
            yield run


def name_run(subject: str) -> None:
    """Names the active run KIND SUBJECT, where it has no name but the one that MLflow drew."""
    run = mlflow.active_run()
    if DRAWN_NAME.fullmatch(run.info.run_name or ""):
        kind = MlflowClient().get_run(run.info.run_id).data.tags["medtl.kind"]
        mlflow.set_tag("mlflow.runName", f"{kind} {subject}")


@contextmanager
def nested_run(name: str, tags: Mapping[str, str], params: Mapping[str, object]) -> Iterator[Run]:
    """A run under the one now active: a trial of a search, a cell of a study."""
    with mlflow.start_run(
        run_name=name, nested=True, tags=dict(tags), log_system_metrics=False
    ) as run:
        mlflow.log_params(dict(params))
        with error_tagged():
            yield run


@contextmanager
def error_tagged() -> Iterator[None]:
    """Writes the one line of an error that passes through into the active run's tag."""
    try:
        yield
    except MedtlError as error:
        mlflow.set_tag(ERROR_TAG, str(error)[:TEXT_LIMIT])
        raise


def refuse_run(message: str) -> None:
    """Marks the run that `mlflow run` handed over as FAILED when no work was begun in it."""
    client, run_id = MlflowClient(), os.environ["MLFLOW_RUN_ID"]
    client.set_tag(run_id, ERROR_TAG, message[:TEXT_LIMIT])
    client.set_terminated(run_id, "FAILED")


def close_cut_off_run(run_id: str | None, successor: str) -> None:
    """Ends a run that a killed process left RUNNING, and those nested in it; links them.

    Nested ones are found by their parent: one that was killed as it began is known by no other.
    """
    if run_id is None or run_id == successor:
        return
    client = MlflowClient()
    run = client.get_run(run_id)
    nested = client.search_runs(
        [run.info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{run_id}' and attributes.status = 'RUNNING'",
    )
    for cut_off in (*nested, run):
        if cut_off.info.status == "RUNNING":
            cut_off_id = cut_off.info.run_id
            client.set_tag(cut_off_id, ERROR_TAG, f"cut off; gone on with in run {successor}")
            client.set_tag(cut_off_id, SUCCESSOR_TAG, successor)
            client.set_terminated(cut_off_id, "KILLED")


def embedded_storage() -> str:
    """The Optuna storage that lies beside the tracking store, so that both are kept or lost."""
    return f"sqlite:///{store_folder() / 'optuna.db'}"


def store_folder() -> Path:
    """The folder that an SQLite tracking store lies in.

    With a tracking server there is no such place: it is then the folder of all that is kept.
    """
    uri = urlparse(mlflow.get_tracking_uri())
    if uri.scheme == "sqlite":
        return Path(uri.path.removeprefix("/") or "mlflow.db").parent.absolute()
    folder = cache_root().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
