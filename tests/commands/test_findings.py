"""Images with any number of findings, from the published CSV to a served champion."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.compare import compare
from medtl.commands.evaluate import evaluate
from medtl.commands.train import train
from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_finding_phantoms
from medtl.errors import MedtlError, ParameterError
from medtl.settings.comparison import CompareSettings
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle

# What radiologists call what the phantoms show, by the number of the patient.
NAMES = {
    "diffuse": ("Infiltration", "Edema", "Consolidation", "Pneumonia", "Fibrosis"),
    "focal": ("Nodule", "Mass", "Atelectasis", "Effusion"),
    "large heart": ("Cardiomegaly", "Cardiomegaly|Pleural_Thickening", "Cardiomegaly|Emphysema"),
}
SMALL = {
    "architecture": "small_resnet",
    "weights": "random",
    "image_size": 48,
    "epochs": 2,
    "views": 1,
    "augment": "none",
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The CSV of 80 phantom patients, in the form and with the findings of ChestX-ray14.

    One patient alone has a hernia, one a pneumothorax; some findings are unknown.
    """
    drawn = tmp_path_factory.mktemp("drawn")
    write_finding_phantoms(drawn, seed=5, patients=80, image_size=48)
    folder = tmp_path_factory.mktemp("published") / "ChestX-ray14"
    (folder / "images").mkdir(parents=True)
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    rows = [f"{header}View Position"]
    alone = {7: "Hernia", 11: "Pneumothorax"}
    with open(drawn / "labels.csv", newline="") as file:
        for row in csv.DictReader(file):
            patient, visit = int(row["patient"][1:]), row["path"][6:7]
            shutil.move(drawn / row["path"], folder / "images" / row["path"])
            named = [
                f"{'?' * each.startswith('?')}{name}"
                for each in row["label"].split("|")
                if each != "No Finding"
                for names in (NAMES[each.removeprefix("?")],)
                for name in names[patient % len(names)].split("|")
            ]
            text = "|".join([*named, *filter(None, [alone.get(patient)])]) or "No Finding"
            rows.append(f"{row['path']},{text},{visit},{patient},{40 + patient % 40},F,PA")
    table = folder / "Data_Entry_2017_v2020.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


@pytest.fixture(scope="module")
def searched(published, empty_store, tmp_path_factory) -> Path:
    """A folder with the stores of a finished search."""
    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MEDTL_CACHE", str(folder / "cache"))
        tune(TuneSettings(data=str(published), **SMALL, trials=2, cutoffs="layer3,head"))
    return folder


@pytest.fixture
def run(searched: Path, own_folders, tmp_path: Path) -> pd.Series:
    """The run of that search, in a copy of its stores that is the test's own."""
    for store in searched.glob("*.db*"):
        shutil.copy(store, tmp_path)
    return newest("tune")


def newest(kind: str) -> pd.Series:
    found = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )
    return found.iloc[0]


@pytest.fixture
def table() -> Callable[[pd.Series, str], pd.DataFrame]:
    """`table(run, place)`: a CSV artifact of a run."""
    return lambda run, place: pd.read_csv(
        mlflow.artifacts.download_artifacts(f"runs:/{run['run_id']}/{place}")
    )


def test_a_search_scores_each_finding_and_serves_a_champion(run, published, table):
    bundle = load_bundle("models:/medtl-ChestX-ray14@champion")
    assert bundle.multi_label
    assert len(bundle.classes) == len(bundle.thresholds) == 14
    per_class = table(run, "evaluation/test/per_class.csv").set_index("class")
    assert per_class.index.tolist() == list(bundle.classes)
    assert run["metrics.test_auroc"] == pytest.approx(per_class["auroc"].mean())
    bounds = [run[f"metrics.test_auroc{end}"] for end in ("_low", "", "_high")]
    assert bounds == sorted(bounds)
    counts = table(run, "evaluation/test/decisions.csv").set_index("finding")
    predictions = table(run, "evaluation/test/predictions.csv")
    assert (counts.sum(axis=1) == len(predictions)).all()
    assert counts["unknown"].sum() > 0
    held = {item.path for item in MlflowClient().list_artifacts(run["run_id"], "evaluation/test")}
    names = ("roc", "precision_recall", "reliability", "decisions", "decision_curve",
             "worst_mistakes")  # fmt: skip
    assert {f"evaluation/test/{name}.png" for name in names} < held
    assert "evaluation/test/confusion.png" not in held
    together = table(run, "data/together.csv").set_index("finding")
    assert together.loc["Emphysema", "Cardiomegaly"] == together.loc["Emphysema", "images"]
    notes = mlflow.artifacts.load_text(f"runs:/{run['run_id']}/data/notes.txt")
    assert "no image of the test split has Hernia, Pneumothorax: not scored there" in notes
    assert np.isnan(per_class.loc["Hernia", "auroc"])
    card = MlflowClient().get_model_version_by_alias("medtl-ChestX-ray14", "champion").description
    assert "of which an image has any number" in card

    image = next((published.parent / "images").iterdir()).read_bytes()
    model = mlflow.pyfunc.load_model("models:/medtl-ChestX-ray14@champion")
    answer = model.predict(pd.DataFrame({"image": [image]}), params={"explain": True}).iloc[0]
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["probabilities"][answer["label"]] == answer["probability"]
    called = [
        name
        for (name, said), bound in zip(
            answer["probabilities"].items(), bundle.thresholds, strict=True
        )
        if said >= bound
    ]
    assert answer["decision"] == ("|".join(called) or "No Finding")
    assert answer["heatmap"]


@pytest.mark.slow
def test_it_is_evaluated_and_meets_the_next_one_at_the_gate(run, published, table, capsys):
    # other splits of the same data: the scores at home are read back from its predictions
    evaluate(EvaluateSettings(model_name="medtl-ChestX-ray14", data=str(published), seed=3))
    beside = table(newest("evaluate"), "evaluation/internal_external.csv").set_index("metric")
    for name in ("auroc", "sensitivity", "ece"):
        assert beside.loc[name, "internal"] == pytest.approx(run[f"metrics.test_{name}"], abs=1e-6)
    capsys.readouterr()
    name = {"model_name": "medtl-ChestX-ray14"}
    train(TrainSettings(data=str(published), **SMALL, **name, balance="loss"))
    assert "on the same" in capsys.readouterr().out
    contest = newest("promote")
    gap = contest["metrics.challenger_auroc"] - contest["metrics.champion_auroc"]
    assert contest["metrics.auroc_difference"] == pytest.approx(gap)
    assert contest["metrics.champion_auroc"] == pytest.approx(run["metrics.test_auroc"], abs=1e-6)
    with pytest.raises(MedtlError, match="gives an image any number of findings, and ChestX-ray14"):
        evaluate(EvaluateSettings(**name, data=str(published), positive="any"))
    with pytest.raises(MedtlError, match="subgroups needs one label an image"):
        evaluate(EvaluateSettings(**name, subgroups="gender"))


@pytest.mark.parametrize("asked", [{"transfer": "hybrid"}, {"balance": "sampler"}])
def test_what_needs_one_label_an_image_is_refused(published, asked):
    with pytest.raises(ParameterError, match="or give positive: the images of ChestX-ray14"):
        train(TrainSettings(data=str(published), **SMALL, **asked))


def test_a_study_needs_one_label_an_image(published):
    settings = {**SMALL, "architecture": "small_resnet"}
    with pytest.raises(MedtlError, match="compare needs one label an image"):
        compare(CompareSettings(data=str(published), **settings))


def test_the_answer_to_a_request_is_json(run):
    image = np.zeros((1, 1, 48, 48), np.uint8)
    bundle = load_bundle("models:/medtl-ChestX-ray14@champion")
    answers = bundle.answer(image)
    assert answers.decisions.shape == (1, len(bundle.classes))
    json.dumps({"decision": bundle.named(answers.decisions[0])}, allow_nan=False)
