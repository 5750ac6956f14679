"""Cases of two images from the CSV to the served answer, with and without a missing image."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from medtl.data.phantoms import write_head_phantoms
from medtl.errors import ParameterError
from medtl.jobs.compare import compare
from medtl.jobs.evaluate import evaluate
from medtl.jobs.train import train
from medtl.settings import CompareSettings, EvaluateSettings, TrainSettings

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


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


@pytest.mark.parametrize("architecture", ["transmed", "late_fusion"])
def test_a_model_of_cases_is_trained_evaluated_and_answers(heads: Path, architecture: str):
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

    evaluate(EvaluateSettings(model="models:/heads@champion", split="test"))
    (run,) = runs("evaluate").itertuples()
    path = mlflow.artifacts.download_artifacts(
        f"runs:/{run.run_id}/evaluation/test/predictions.csv"
    )
    assert pd.read_csv(path)["case"].str.startswith("h00").all()


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


def test_one_image_a_case_is_asked_for_several(small_phantoms: Path):
    with pytest.raises(ParameterError, match=r"data.*cases of several images"):
        compare(CompareSettings(study="dai2021", data=str(small_phantoms)))


def test_a_network_of_one_image_refuses_cases(heads: Path):
    with pytest.raises(ParameterError, match="these cases have 2: give late_fusion or transmed"):
        train(TrainSettings(data=str(heads), missing="mask", architecture="resnet18", **QUICK))
