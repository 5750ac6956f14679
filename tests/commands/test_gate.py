"""Trained models at the gate, each verdict in a run; and a model on the data of another site."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.evaluate import evaluate
from medtl.commands.promote import promote
from medtl.commands.train import train
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError, ParameterError
from medtl.settings.evaluation import EvaluateSettings, PromoteSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle

NAME = "wards"
SMALL = {
    "architecture": "squeezenet1_1",
    "weights": "random",
    "image_size": 64,
    "epochs": 1,
    "augment": "none",
    "model_name": NAME,
}


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


@pytest.fixture(scope="module")
def store(small_phantoms, empty_store, tmp_path_factory) -> Path:
    """A folder with the stores of one training, registered as the first version."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MEDTL_CACHE", str(folder / "cache"))
        train(TrainSettings(data=str(small_phantoms), **SMALL))
    return folder


@pytest.fixture
def trained(store: Path, own_folders, tmp_path: Path) -> str:
    """The run of that training, in a copy of its store that is the test's own."""
    shutil.copy(store / "mlflow.db", tmp_path)
    return runs("train").iloc[0]["run_id"]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """The CSV of another site, whose labels are other words and one more."""
    folder = tmp_path_factory.mktemp("sites") / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=7, patients=30, image_size=64)
    table = pd.read_csv(folder / "labels.csv")
    table["label"] = table["label"].map(
        {"clear": "healthy", "focal": "opacity", "diffuse": "opacity"}
    )
    table.loc[::6, "label"] = "device"
    table.drop(columns="split", errors="ignore").to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def test_every_verdict_has_a_run_that_says_who_won_on_which_data(trained: str, small_phantoms):
    first = runs("promote").iloc[0]
    assert first["tags.mlflow.parentRunId"] == trained
    assert first["tags.medtl.promoted"] == "true"
    assert first["tags.medtl.champion_before"] == "none"

    train(TrainSettings(data=str(small_phantoms), **SMALL, lr=1e-5))
    second = runs("promote").iloc[0]
    data = runs("train").iloc[0]["tags.medtl.data"]
    assert second["tags.medtl.data"] == data
    assert (second["tags.medtl.version"], second["tags.medtl.champion_before"]) == ("2", "1")
    champion = int(MlflowClient().get_model_version_by_alias(NAME, "champion").version)
    assert second["tags.medtl.champion"] == str(champion)
    contest = {name: second[f"metrics.{name}"] for name in ("challenger_auroc", "champion_auroc")}
    gap = contest["challenger_auroc"] - contest["champion_auroc"]
    assert second["metrics.auroc_difference"] == pytest.approx(gap)
    assert second["metrics.auroc_difference_low"] < second["metrics.auroc_difference_high"]
    assert second["metrics.left_out"] == 0
    verdict = json.loads(mlflow.artifacts.load_text(f"runs:/{second['run_id']}/verdict.json"))
    assert verdict["cases"] == second["metrics.cases"] > 20
    held = {item.path for item in MlflowClient().list_artifacts(second["run_id"], "gate")}
    assert held == {"gate/contest.csv", "gate/contest.png"}

    promote(PromoteSettings(model_name=NAME, version=3 - champion))
    by_hand = runs("promote").iloc[0]
    assert by_hand["tags.medtl.data"] == data
    assert "by hand" in by_hand["tags.mlflow.note.content"]
    promote(PromoteSettings(model_name=NAME, rollback=True))
    assert int(MlflowClient().get_model_version_by_alias(NAME, "champion").version) == champion


def test_other_splits_of_the_same_data_move_nothing(trained: str, small_phantoms, capsys):
    """The first version was trained on most of what the second is tested on."""
    train(TrainSettings(data=str(small_phantoms), **SMALL, seed=1))
    said = capsys.readouterr().out
    assert "version 2 is not compared with the champion, version 1: of " in said
    assert "one has learned from all but" in said
    aliases = MlflowClient().get_registered_model(NAME).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 1}
    promote(PromoteSettings(model_name=NAME))
    assert "one has learned from all but" in capsys.readouterr().out


def test_what_a_backbone_was_trained_on_is_on_the_record_too(trained: str, small_phantoms, clinic):
    settings = {
        **SMALL,
        "weights": f"models:/{NAME}/1",
        "model_name": "auto",
        "positive": "opacity",
    }
    train(TrainSettings(data=str(clinic), **settings))
    (model,) = mlflow.search_logged_models(max_results=1, output_format="list")
    bundle = load_bundle(f"models:/{model.model_id}")
    assert [each.data for each in bundle.seen] == ["wards", "clinic"]


def test_labels_of_another_site_are_mapped_and_set_beside(trained: str, clinic, capsys):
    mapping = "healthy=clear,opacity=focal|diffuse,device="
    evaluate(
        EvaluateSettings(data=str(clinic), model=f"models:/{NAME}/1", split="all", mapping=mapping)
    )
    said = capsys.readouterr()
    assert "external: clinic" in said.out
    assert "was trained on" not in said.err
    run = runs("evaluate").iloc[0]
    assert run["tags.medtl.seen"] == "0"
    place = f"runs:/{run['run_id']}/evaluation"
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"{place}/internal_external.csv"))
    auroc = table.set_index("metric").loc["auroc"]
    assert auroc["external"] == pytest.approx(run["metrics.all_auroc"])
    predictions = mlflow.artifacts.download_artifacts(f"{place}/all/predictions.csv")
    found = pd.read_csv(predictions)
    assert set(found["label"]) == {"healthy", "opacity"}
    assert found[["probability_healthy", "probability_opacity"]].sum(axis=1).to_numpy() == (
        pytest.approx(1.0)
    )


def test_at_home_the_internal_scores_are_those_of_the_training(
    trained: str, small_phantoms, capsys
):
    """Other splits of the same data are other data; the model has learned from most of it."""
    evaluate(EvaluateSettings(data=str(small_phantoms), model=f"models:/{NAME}/1", seed=3))
    run = runs("evaluate").iloc[0]
    metrics = MlflowClient().get_run(trained).data.metrics
    file = mlflow.artifacts.download_artifacts(
        f"runs:/{run['run_id']}/evaluation/internal_external.csv"
    )
    table = pd.read_csv(file).set_index("metric")
    for name in ("auroc", "sensitivity", "ece"):
        for end in ("", "_low", "_high"):
            assert table.loc[name, f"internal{end}"] == pytest.approx(
                metrics[f"test_{name}{end}"], abs=1e-9
            )
    assert int(run["tags.medtl.seen"]) > 0
    assert "the scores are biased upwards" in capsys.readouterr().err


def test_labels_that_nobody_explained_are_refused(trained: str, clinic):
    asked = {"data": str(clinic), "model": f"models:/{NAME}/1"}
    with pytest.raises(MedtlError, match="map them with mapping="):
        evaluate(EvaluateSettings(**asked))
    with pytest.raises(ParameterError, match="mapping=device is not allowed: say which"):
        evaluate(EvaluateSettings(**asked, mapping="healthy=clear,opacity=focal"))


def test_cases_are_nothing_for_a_model_of_single_images(trained: str, clinic: Path, tmp_path: Path):
    table = pd.read_csv(clinic)
    table["path"] = [f"{clinic.parent.name}/{path}" for path in table["path"]]
    pairs = table.groupby("label").head(2).sort_values("label")
    pairs = pairs.assign(case=pairs["label"], modality=["t1", "t2"] * 3, patient="", split="test")
    more = pairs.assign(case=pairs["case"] + " again")
    shutil.copytree(clinic.parent, tmp_path / "cases" / clinic.parent.name)
    shutil.copytree(clinic.parent, tmp_path / "cases" / "again")
    more["path"] = [path.replace("clinic", "again", 1) for path in more["path"]]
    both = pd.concat([pairs, more])[["path", "label", "patient", "split", "case", "modality"]]
    both.to_csv(tmp_path / "cases" / "labels.csv", index=False)
    with pytest.raises(MedtlError, match="takes single images, and cases has cases of t1, t2"):
        evaluate(
            EvaluateSettings(data=str(tmp_path / "cases/labels.csv"), model=f"models:/{NAME}/1")
        )
