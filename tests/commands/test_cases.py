"""Cases of two images from the CSV to the served answer, with and without a missing image."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from medtl.commands.compare import compare
from medtl.commands.evaluate import evaluate
from medtl.commands.train import train
from medtl.comparison.design import PRETRAINED_ON
from medtl.data.sources.phantoms.datasets import write_head_phantoms
from medtl.errors import ParameterError
from medtl.pipeline.setup import started_from
from medtl.settings.comparison import CompareSettings
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle

QUICK = {"weights": "random", "image_size": 32, "epochs": 1, "augment": "none"}


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """The CSV of 30 cases at 32 px, of which two lack their T2 image."""
    folder = tmp_path / "heads"
    folder.mkdir()
    write_head_phantoms(folder, patients=30, image_size=32)
    file = folder / "labels.csv"
    rows = pd.read_csv(file, dtype=str)
    rows[~rows["path"].isin(("h0004_t2.png", "h0007_t2.png"))].to_csv(file, index=False)
    return file


@pytest.fixture
def findings(heads: Path) -> Path:
    """The same cases with two findings: whether the lesion is bright on T1, and whether on T2.

    Of one test case it is not known whether it is bright on T2.
    """
    named = {"blood": "bright T1", "fat": "bright T1|bright T2", "fluid": "bright T2"}
    rows = pd.read_csv(heads, dtype=str)
    rows["label"] = rows["label"].map(named).fillna("No Finding")
    rows.loc[rows["case"] == "h0002", "label"] = "bright T1|?bright T2"
    rows["split"] = [("train", "valid", "test")[int(case[1:]) % 3] for case in rows["case"]]
    rows.to_csv(heads, index=False)
    return heads


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


@pytest.mark.parametrize(
    "architecture", [pytest.param("transmed", marks=pytest.mark.slow), "late_fusion"]
)
def test_a_model_of_cases_is_trained_evaluated_and_answers(heads: Path, architecture: str, capsys):
    train(
        TrainSettings(
            data=str(heads),
            missing="mask",
            architecture=architecture,
            cutoff="projection" if architecture == "transmed" else "all",
            model_name="heads",
            **QUICK,
        )
    )
    model = mlflow.pyfunc.load_model("models:/heads@champion")
    assert [column.name for column in model.metadata.signature.inputs] == ["image_t1", "image_t2"]
    t1, t2 = ((heads.parent / f"h0001_{name}.png").read_bytes() for name in ("t1", "t2"))
    rows = pd.DataFrame(
        [(t1, t2), (t1, b""), (b"", b""), (b"no image", t2), (t2, t1)],
        columns=["image_t1", "image_t2"],
    )
    answers = model.predict(rows, params={"explain": True})
    assert answers["label"].notna().tolist() == [True, True, False, False, True]
    assert answers["error"][2] == "all images of the case are missing"
    assert answers["error"][3].startswith("image_t1: not an image")
    probability = answers["probabilities"].dropna().map(lambda each: each["fat"])
    assert probability.nunique() == 3  # a masked or exchanged image changes the answer
    assert answers["heatmap"].notna().tolist() == [True, True, False, False, True]
    without = model.predict(rows[["image_t1"]][:2])
    assert without["probability"][0] == pytest.approx(answers["probability"][1], abs=1e-6)

    capsys.readouterr()
    evaluate(EvaluateSettings(model="models:/heads@champion", split="test"))
    beside = [
        line for line in capsys.readouterr().out.splitlines() if "(as it was trained)" in line
    ]
    assert [line.split(":")[0] for line in beside] == [
        f"baseline      {name}"
        for name in ("frozen features", "brightness of 8 x 8 fields", "file properties")
    ]
    (run,) = runs("evaluate").itertuples()
    path = mlflow.artifacts.download_artifacts(
        f"runs:/{run.run_id}/evaluation/test/predictions.csv"
    )
    assert pd.read_csv(path)["case"].str.startswith("h00").all()


def test_findings_of_cases_are_learned_scored_and_served(findings: Path):
    train(
        TrainSettings(
            data=str(findings),
            missing="mask",
            architecture="late_fusion",
            cutoff="all",
            model_name="heads",
            **QUICK,
        )
    )
    bundle = load_bundle("models:/heads@champion")
    assert bundle.classes == ("bright T1", "bright T2")
    assert bundle.modalities == ("t1", "t2")
    model = mlflow.pyfunc.load_model("models:/heads@champion")
    t1, t2 = ((findings.parent / f"h0001_{name}.png").read_bytes() for name in ("t1", "t2"))
    rows = pd.DataFrame([(t1, t2), (t1, b"")], columns=["image_t1", "image_t2"])
    answers = model.predict(rows, params={"explain": True})
    assert answers["error"].isna().all()
    assert answers["probability"].nunique() == 2  # a masked image changes the answer
    thresholds = dict(zip(bundle.classes, bundle.thresholds, strict=True))
    for answer in answers.itertuples():
        said = answer.probabilities
        called = [name for name, threshold in thresholds.items() if said[name] >= threshold]
        assert answer.decision == ("|".join(called) or "No Finding")
        assert answer.label == max(said, key=said.get)
        assert answer.in_domain in (True, False)
        assert answer.heatmap

    (run,) = runs("train").itertuples()
    place = f"runs:/{run.run_id}/evaluation/test"
    counts = pd.read_csv(mlflow.artifacts.download_artifacts(f"{place}/decisions.csv"))
    assert counts.set_index("finding")["unknown"].to_dict() == {"bright T1": 0, "bright T2": 1}
    said = pd.read_csv(mlflow.artifacts.download_artifacts(f"{place}/predictions.csv"))
    assert said.set_index("case").loc["h0002", "label"] == "bright T1|?bright T2"


def test_the_study_shows_all_modalities_and_each_alone(heads: Path):
    compare(
        CompareSettings(
            study="dai2021",
            data=str(heads),
            missing="mask",
            architecture="late_fusion",
            cutoffs="head",
            **QUICK,
        )
    )
    cells = runs("cell")
    assert sorted(cells["params.series"]) == ["all modalities", "t1 alone", "t2 alone"]
    assert set(cells["status"]) == {"FINISHED"}


def test_a_network_of_cases_starts_from_its_own_kind_or_from_the_network_of_its_images():
    assert started_from("auto", "models:/a/1", "small_resnet") == "small_resnet"
    for architecture in ("transmed", "transmed_s:resnet18", "resnet18"):
        assert started_from(architecture, "models:/a/1", "resnet18") == architecture
    with pytest.raises(ParameterError, match=r"the weights models:/a/1 are of resnet18"):
        started_from("transmed:small_resnet", "models:/a/1", "resnet18")


@pytest.mark.slow
def test_cells_start_from_a_pretrained_network_of_single_images(heads: Path, small_phantoms: Path):
    compare(
        CompareSettings(
            study="dai2021",
            data=str(heads),
            missing="mask",
            architecture="transmed:small_resnet",
            cutoffs="head",
            **QUICK | {"weights": f"{PRETRAINED_ON}{small_phantoms}", "epochs": 0},
        )
    )
    cells = runs("cell")
    assert set(cells["status"]) == {"FINISHED"}
    (start,) = set(cells["tags.medtl.weights"])
    assert load_bundle(start).architecture == "small_resnet"


def test_one_image_a_case_is_asked_for_several(small_phantoms: Path):
    with pytest.raises(ParameterError, match=r"data.*cases of several images"):
        compare(CompareSettings(study="dai2021", data=str(small_phantoms)))


def test_a_network_of_one_image_refuses_cases(heads: Path):
    with pytest.raises(ParameterError, match="these cases have 2: give late_fusion or transmed"):
        train(TrainSettings(data=str(heads), missing="mask", architecture="resnet18", **QUICK))
