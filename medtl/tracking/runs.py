"""MLflow runs: started where `mlflow run` or the user wants them, and always ended in a true state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.settings import Settings

ERROR_TAG = "medtl.error"
TEXT_LIMIT = 5000  # characters a tag of MLflow may have on every store


@contextmanager
def tracked_run(kind: str, settings: Settings, tags: Mapping[str, str] = {}) -> Iterator[Run]:  # noqa: B006
    """The run of an entry point: the one `mlflow run` handed over, or a new one.

    Parameters already logged by `mlflow run` stay as the user typed them; the others are added,
    and the settings as they were resolved stand in the artifact `settings.json`.
    """
    mlflow.enable_system_metrics_logging()
    mlflow.set_system_metrics_sampling_interval(5)
    with mlflow.start_run(log_system_metrics=True) as run:
        mlflow.set_tags({"medtl.kind": kind, **tags})
        values = dataclasses.asdict(settings)
        missing = {name: values[name] for name in values if name not in run.data.params}
        mlflow.log_params(missing)
        mlflow.log_dict(values, "settings.json")
        with error_tagged():
            yield run


@contextmanager
def nested_run(name: str, tags: Mapping[str, str], params: Mapping[str, object]) -> Iterator[Run]:
    """A run under the one now active: a trial of a search, a cell of a study."""
    with mlflow.start_run(run_name=name, nested=True, tags=dict(tags)) as run:
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
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        client = MlflowClient()
        client.set_tag(run_id, ERROR_TAG, message[:TEXT_LIMIT])
        client.set_terminated(run_id, "FAILED")
