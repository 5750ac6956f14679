"""Moved project folders: an error before any work, and repair by one command."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.evaluate import evaluate
from medtl.errors import MedtlError
from medtl.settings.evaluation import EvaluateSettings, PromoteSettings
from medtl.tracking.logged_model import load_bundle
from medtl.tracking.registry import check_registry
from medtl.tracking.relocate import main
from medtl.tracking.runs import tracked_run


@pytest.fixture
def moved(filled_store, empty_store, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Moves a project folder with a run, a champion and another file; returns both places."""
    old, new = tmp_path / "o'old" / "project", tmp_path / "new"
    old.mkdir(parents=True)
    shutil.copy(empty_store, old)
    monkeypatch.chdir(old)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old / 'mlflow.db'}")
    client = MlflowClient()
    experiment = client.create_experiment("ours", artifact_location=str(old / "mlruns" / "1"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ours")
    model = next((filled_store[0].parent / "artifacts" / "models").iterdir())
    logged = client.create_logged_model(experiment_id=experiment, name="model")
    shutil.copytree(model / "artifacts", logged.artifact_location, dirs_exist_ok=True)
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model("mine")
    client.create_model_version("mine", logged.model_uri, model_id=logged.model_id)
    client.set_registered_model_alias("mine", "champion", "1")
    with tracked_run("promote", PromoteSettings()):
        mlflow.log_text("kept", "note.txt")
    old.rename(new)
    monkeypatch.chdir(new)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new / 'mlflow.db'}")
    return old, new


def test_a_moved_folder_is_said_before_any_work_and_put_right_by_the_command(
    moved, monkeypatch, capsys
):
    old, new = moved
    with pytest.raises(MedtlError, match=r"was moved from .*; run there: python -m medtl") as told:
        evaluate(EvaluateSettings(model_name="mine"))
    assert not old.exists(), "an artifact was written to the old place"
    _, _, command = str(told.value).partition("run there: ")
    *called, named_old, named_new = shlex.split(command)
    assert called == ["python", "-m", main.__module__]
    monkeypatch.setattr("sys.argv", ["moved", named_old, named_new])
    main()
    assert capsys.readouterr().out.startswith("5 paths in ")

    check_registry("mine")
    assert load_bundle("models:/mine@champion").architecture == "squeezenet1_1"
    with tracked_run("promote", PromoteSettings()) as run:
        mlflow.log_text("new", "note.txt")
    assert Path(run.info.artifact_uri).is_relative_to(new)
    texts = {
        mlflow.artifacts.load_text(f"runs:/{each.info.run_id}/note.txt")
        for each in mlflow.search_runs(output_format="list")
        if each.info.status == "FINISHED"
    }
    assert texts == {"kept", "new"}


def test_a_champion_whose_files_are_gone_is_said_before_the_search(moved):
    with pytest.raises(MedtlError, match=r"compared with the champion of mine: .*give another"):
        check_registry("mine")
    check_registry("nobody-took-this-name")


@pytest.mark.parametrize(
    "store",
    ["postgresql+psycopg://me:secret@127.0.0.1:1/runs", "sqlite:///{tmp_path}/file/runs.db"],
)
def test_a_database_that_does_not_open_is_one_line_at_once(monkeypatch, tmp_path, store):
    (tmp_path / "file").touch()
    store = store.format(tmp_path=tmp_path)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", store)
    with pytest.raises(MedtlError, match=r"registry .* does not open \(.*REGISTRY_URI") as told:
        check_registry("mine")
    assert "\n" not in str(told.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    with (
        pytest.raises(MedtlError, match=r"tracking store .* does not open .*TRACKING_URI") as told,
        tracked_run("promote", PromoteSettings()),
    ):
        pass
    assert "secret" not in str(told.value)
