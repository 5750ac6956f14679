"""The last lines of a command: addresses that exist, and commands that work as printed."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.tracking import MlflowClient

from medtl.settings.evaluation import DictionarySettings
from medtl.tracking.addresses import run_addresses, serve_command, ui_command
from medtl.tracking.runs import tracked_run


def test_the_addresses_of_a_run_open_the_view_of_trained_models(tmp_path, monkeypatch):
    with tracked_run("dictionary", DictionarySettings()) as run:
        mlflow.log_text("<p>", "data/report.html")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    start, runs, this, report = run_addresses(run.info.run_id)
    assert (
        start
        == f"show it       mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}, then open:"
    )
    experiment = f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs"
    view = "viewStateShareKey=medtl-runs&workflowType=machine_learning"
    assert runs == f"all runs      {experiment}?{view}"
    assert this == f"this run      {experiment}/{run.info.run_id}?workflowType=machine_learning"
    assert report.startswith("data report   /")
    assert Path(report.removeprefix("data report   ")).read_text() == "<p>"
    tags = MlflowClient().get_experiment(run.info.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_kind_that_a_user_gave_an_experiment_stays(monkeypatch):
    client = MlflowClient()
    number = client.create_experiment("chosen", tags={"mlflow.experimentKind": "genai_development"})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    with tracked_run("dictionary", DictionarySettings()):
        pass
    tags = client.get_experiment(number).tags
    assert tags["mlflow.experimentKind"] == "genai_development"


def test_commands_name_the_store_where_it_is_not_the_default_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    served = "mlflow models serve -m models:/m@champion --env-manager local --port 5001"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    assert (ui_command(), serve_command("models:/m@champion")) == ("mlflow ui", served)
    uri = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    assert serve_command("models:/m@champion") == f"MLFLOW_TRACKING_URI={uri} {served}"
    uri = "https://user:secret@host"
    assert "secret" not in serve_command("models:/m@champion")
    assert "https://" in serve_command("models:/m@champion")
