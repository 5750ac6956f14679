"""Addresses of runs in the MLflow UI, and commands that are complete in the current folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medtl.errors import masked_value
from medtl.tracking.saved_views import RUNS, save_runs_view
from medtl.tracking.store import store_file

UI = "http://127.0.0.1:5000"  # of `mlflow ui` with its default port
SERVER_PORT = 5001  # of a served model: macOS and `mlflow ui` use 5000
VIEW = "workflowType=machine_learning"  # the UI's default is its view of language models
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
METRIC_TAG, METRIC = "mlflow.experiment.primaryMetric.name", "best_valid_auroc"
REPORTS = {
    "data/report.html": "data report",
    "search/leaderboard.html": "leaderboard",
    "search/plots.html": "search plots",
    "report/report.html": "report",
}


def mark_experiment(experiment_id: str) -> None:
    """Tags an experiment as one of trained models, so that the UI opens it in that view.

    Also names the metric that the UI compares runs by, and saves a view of the runs. A tag that is
    already there is not changed.
    """
    client = MlflowClient()
    tags = client.get_experiment(experiment_id).tags
    for name, value in ((KIND_TAG, KIND), (METRIC_TAG, METRIC)):
        if name not in tags:
            client.set_experiment_tag(experiment_id, name, value)
    save_runs_view(experiment_id, tags)


def run_addresses(run_id: str) -> list[str]:
    """Formats the last lines of a command: its runs in the UI, this run, and its reports."""
    client = MlflowClient()
    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    lines = [] if _is_served() else [f"show it       {ui_command()}, then open:"]
    lines += [
        f"all runs      {view_address(experiment, RUNS)}",
        f"this run      {run_address(experiment, run_id)}",
    ]
    for place in REPORTS:
        kind = place.partition("/")[0]
        if place in {each.path for each in client.list_artifacts(run_id, kind)}:
            lines.append(f"{REPORTS[place]:<14}{artifact_address(run, place)}")
    return lines


def view_address(experiment_id: str, key: str) -> str:
    """Returns the run list of an experiment in a saved view."""
    return f"{_runs(experiment_id)}?viewStateShareKey={quote(key, safe='')}&{VIEW}"


def run_address(experiment_id: str, run_id: str) -> str:
    """Returns the page of a run."""
    return f"{_runs(experiment_id)}/{run_id}?{VIEW}"


def artifact_address(run: Run, place: str) -> str:
    """Returns the file of an artifact, or its page on a tracking server."""
    if _is_served():
        return f"{_runs(run.info.experiment_id)}/{run.info.run_id}/artifacts/{place}"
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


def _runs(experiment_id: str) -> str:
    """Returns the run list of an experiment in the UI."""
    base = masked_value(mlflow.get_tracking_uri()).rstrip("/") if _is_served() else UI
    return f"{base}/#/experiments/{experiment_id}/runs"


def _is_served() -> bool:
    """Returns whether the tracking store is a server, which has the UI."""
    return mlflow.get_tracking_uri().startswith("http")


def _is_default() -> bool:
    """Returns whether MLflow finds the tracking store from this folder without its URI."""
    return store_file() == Path("mlflow.db").absolute()
