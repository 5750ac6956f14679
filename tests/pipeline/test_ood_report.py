"""`evaluate` measures how well a model tells images of other kinds, on small phantoms."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.commands.evaluate import evaluate
from medtl.commands.train import train
from medtl.data.sources.phantoms.datasets import write_head_phantoms
from medtl.errors import ParameterError
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.training import TrainSettings


@pytest.fixture
def model(small_phantoms: Path) -> str:
    """The URI of a small model of the wards."""
    train(
        TrainSettings(
            data=str(small_phantoms),
            architecture="small_resnet",
            weights="random",
            image_size=64,
            epochs=1,
            augment="none",
        )
    )
    return mlflow.search_logged_models(output_format="list")[0].model_uri


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder of images in colour that show nothing, in no folders of classes."""
    folder = tmp_path / "noise"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_other_images_and_copies_are_set_against_the_models_own(
    model: str, noise: Path, tmp_path: Path, capsys
):
    heads = tmp_path / "heads"
    heads.mkdir()
    write_head_phantoms(heads, patients=12, image_size=64)
    evaluate(EvaluateSettings(model=model, against=f"{noise},{heads}"))
    run = mlflow.search_runs(filter_string="tags.`medtl.kind` = 'evaluate'").iloc[0]
    place = f"runs:/{run['run_id']}/evaluation"
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"{place}/domain.csv"))
    copies = [f"wards, {name}" for name in ("inverted", "turned", "cropped", "trimmed")]
    assert table["against"].tolist() == ["wards", *copies, "noise", "heads"]
    assert table["images"].tolist()[5:] == [12, 24]
    table = table.set_index("against")
    assert np.isnan(table.loc["wards", "auroc"])
    assert table.loc["wards", "flagged"] < 0.3
    for name in ("wards, inverted", "noise"):
        assert table.loc[name, "auroc"] > 0.95
        assert table.loc[name, "flagged"] > 0.9
    for column in ("auroc", "flagged"):
        known = table[column].dropna()
        assert (table[f"{column}_low"][known.index] <= known).all()
        assert (known <= table[f"{column}_high"][known.index]).all()
    assert run["metrics.domain_auroc_inverted"] == pytest.approx(
        table.loc["wards, inverted", "auroc"]
    )
    assert Path(mlflow.artifacts.download_artifacts(f"{place}/domain.png")).stat().st_size > 10000
    assert "wards, inverted" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_what_holds_no_images_is_named(source: str, tmp_path: Path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ParameterError, match=r"against=.* is not allowed: a folder with images"):
        evaluate(EvaluateSettings(against=f"digits,{source}"))
