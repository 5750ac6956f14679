"""Addresses of runs in the MLflow UI, and commands that are complete in the current folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medtl.errors import masked_value
from medtl.tracking.store import store_file

UI = "http://127.0.0.1:5000"  # of `mlflow ui` with its default port
SERVER_PORT = 5001  # of a served model: macOS and `mlflow ui` use 5000
VIEW = "workflowType=machine_learning"  # the UI's default is its view of language models
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
REPORTS = {"data/report.html": "data report", "report/report.html": "report"}


def mark_experiment(experiment_id: str) -> None:
    """Tags an experiment as one of trained models, so that the UI opens it in that view.

    A tag that is already there is not changed.
    """
    client = MlflowClient()
    if KIND_TAG not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, KIND_TAG, KIND)


def run_addresses(run_id: str) -> list[str]:
    """Formats the last lines of a command: its runs in the UI, this run, and its reports."""
    client = MlflowClient()
    run = client.get_run(run_id)
    uri = mlflow.get_tracking_uri()
    served = uri.startswith("http")
    base = masked_value(uri).rstrip("/") if served else UI
    runs = f"{base}/#/experiments/{run.info.experiment_id}/runs"
    lines = [] if served else [f"show it       {ui_command()}, then open:"]
    lines += [f"all runs      {runs}?{VIEW}", f"this run      {runs}/{run_id}?{VIEW}"]
    for place in REPORTS:
        kind = place.partition("/")[0]
        if place in {each.path for each in client.list_artifacts(run_id, kind)}:
            lines.append(f"{REPORTS[place]:<14}{artifact_address(run, place)}")
    return lines


def artifact_address(run: Run, place: str) -> str:
    """Returns the file of an artifact, or its page on a tracking server."""
    uri = mlflow.get_tracking_uri()
    if uri.startswith("http"):
        page = f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/{place}"
        return f"{masked_value(uri).rstrip('/')}/#/{page}"
    parsed = urlparse(run.info.artifact_uri)
    root = unquote(parsed.path) if parsed.scheme in ("", "file") else run.info.artifact_uri
    return f"{root.rstrip('/')}/{place}"


def ui_command() -> str:
    """Returns the command that shows the tracking store in a browser."""
    if _is_default():
        return "mlflow ui"
    return f"mlflow ui --backend-store-uri {shlex.quote(masked_value(mlflow.get_tracking_uri()))}"


def serve_command(model_uri: str) -> str:
    """Returns the command that serves a model, with the tracking store where it is needed."""
    command = f"mlflow models serve -m {model_uri} --env-manager local --port {SERVER_PORT}"
    if _is_default():
        return command
    return f"MLFLOW_TRACKING_URI={shlex.quote(masked_value(mlflow.get_tracking_uri()))} {command}"


def _is_default() -> bool:
    """Returns whether MLflow finds the tracking store from this folder without its URI."""
    return store_file() == Path("mlflow.db").absolute()
