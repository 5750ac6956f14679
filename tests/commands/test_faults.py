"""Bad luck that strikes a whole job: a full disk, data that nobody may write, a loss of NaN."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from plotly.offline import get_plotlyjs

from medtl.cache import cache_root
from medtl.commands.train import train
from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError
from medtl.pipeline.run_logging import log_halved
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.training.checkpoints import KIND

QUICK = {
    "architecture": "small_resnet",
    "weights": "random",
    "image_size": 32,
    "augment": "none",
    "epochs": 2,
}


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """The folder of 24 phantom patients at 32 px."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=24, image_size=32)
    return folder


def runs(kind: str) -> list:
    return mlflow.search_runs(
        filter_string=f"tags.`medtl.kind` = '{kind}'", output_format="list",
        search_all_experiments=True, order_by=["start_time"],
    )  # fmt: skip


def standing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all that is in a folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_a_full_artifact_store_loses_no_trial_and_the_same_command_goes_on(
    clinic, small_disk, read_only, monkeypatch, capsys
):
    plots = len(get_plotlyjs().encode()) // 1024  # KiB that the interactive plots of a search take
    disk = small_disk(1024 + plots)
    MlflowClient().create_experiment("small", artifact_location=str(disk / "artifacts"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "small")
    before = standing(clinic)
    asked = TuneSettings(
        data=str(read_only(clinic) / "labels.csv"), **QUICK, trials=2, cutoffs="head",
        optimizers="adam", study="mine", model_name="mine",
    )  # fmt: skip
    with pytest.raises(MedtlError, match=r"No space left.*free some disk.*goes on") as full:
        tune(asked)
    assert "\n" not in str(full.value)
    assert str(disk) in str(full.value)
    (first,) = runs("tune")
    assert first.info.status == "FAILED"
    assert first.data.tags["medtl.error"] == str(full.value)
    trials = {run.info.run_id: run.info.status for run in runs("trial")}
    assert list(trials.values()) == ["FINISHED"] * 2

    small_disk(50 * 1024)
    capsys.readouterr()
    tune(asked)
    assert "going on after 2 finished trials" in capsys.readouterr().out
    assert {run.info.run_id for run in runs("trial")} == set(trials), "no trial was run again"
    first, second = epochs("tune")
    assert first == second, "nor was the best one"
    _, second = runs("tune")
    assert second.info.status == "FINISHED"
    champion = MlflowClient().get_model_version_by_alias("mine", "champion")
    assert champion.run_id == second.info.run_id
    assert standing(clinic) == before, "nothing was written among the data"


def epochs(kind: str) -> list[list[float]]:
    """What each epoch of each run took, in seconds: no two epochs are timed alike."""
    client = MlflowClient()
    return [
        [metric.value for metric in client.get_metric_history(run.info.run_id, "epoch_seconds")]
        for run in runs(kind)
    ]


@pytest.mark.slow
def test_a_training_that_found_no_room_for_its_model_is_not_trained_again(
    clinic, small_disk, monkeypatch
):
    disk = small_disk(400)
    MlflowClient().create_experiment("small", artifact_location=str(disk / "artifacts"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "small")
    asked = TrainSettings(data=str(clinic / "labels.csv"), **QUICK, cutoff="layer4")
    with pytest.raises(MedtlError, match="No space left"):
        train(asked)
    small_disk(50 * 1024)
    train(asked)
    trained, taken = epochs("train")
    assert len(trained) == 2
    assert taken == trained
    assert not list((cache_root() / KIND).iterdir()), "whoever trains again does so anew"


def test_a_training_that_diverges_is_one_line(clinic):
    asked = TrainSettings(
        data=str(clinic / "labels.csv"), **{**QUICK, "epochs": 10}, cutoff="all", batch_size=4,
        optimizer="sgd", lr=10.0, weight_decay=1.0,
    )  # fmt: skip
    with pytest.raises(MedtlError, match=r"not a finite number in epoch \d+ .*lower the learning"):
        train(asked)
    (run,) = runs("train")
    assert run.info.status == "FAILED"
    assert "lower the learning rate" in run.data.tags["medtl.error"]


def test_a_run_tells_of_the_batch_that_memory_was_too_short_for():
    with mlflow.start_run() as run:
        log_halved(None)
        assert "medtl.batch_size" not in mlflow.get_run(run.info.run_id).data.tags
        log_halved(12)
    assert mlflow.get_run(run.info.run_id).data.tags["medtl.batch_size"].startswith("12,")
