"""The served model answers files as an evaluation scores them, whatever window and fit are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc import PythonModelContext
from PIL import Image

from medtl.commands.train import train
from medtl.data.loading import load
from medtl.imaging.rendering import Rendering
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import Preprocessing
from medtl.serving.handler import BUNDLE, ServedModel
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle
from tests.imaging.test_dicom import dicom, written

LUNG, SOFT = "-600/1500", "40/400"


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Drawn slices in Hounsfield units of two classes, of several shapes: DICOM and TIFF.

    Beside them in `png` as PNG, stored with an offset of 1024.
    """
    random = np.random.default_rng(0)
    for number in range(24):
        name = ("dense", "clear")[number % 2]
        folder = tmp_path / "slices" / name
        folder.mkdir(parents=True, exist_ok=True)
        values = random.normal(-800, 60, (40, 56 + 8 * (number % 3)))
        values[10:30, 15:35] = random.normal(60 if name == "dense" else -10, 20, (20, 20))
        values = values.round().astype(np.int16)
        (beside := tmp_path / "png" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray((values + 1024).astype(np.uint16)).save(beside / f"{number}.png")
        if number % 4 < 2:
            file = dicom(values, Modality="CT", RescaleSlope=1, RescaleIntercept=0)
            file.PatientID = f"P{number}"
            (folder / f"{number}.dcm").write_bytes(written(file))
        else:
            Image.fromarray(values.astype(np.int32)).save(folder / f"{number}.tif")
    return tmp_path / "slices"


def served(bundle: Predictor, folder: Path) -> tuple[ServedModel, PythonModelContext]:
    bundle.save(folder / BUNDLE)
    model, context = ServedModel(), PythonModelContext({BUNDLE: str(folder / BUNDLE)}, None)
    model.load_context(context)
    return model, context


@pytest.mark.parametrize(
    ("folder", "window", "fit", "interpolation", "crop"),
    [
        ("slices", f"{SOFT},{LUNG}", "pad", "bilinear", 1.0),
        ("slices", SOFT, "crop", "bicubic", 0.875),
        ("slices", "percentiles", "squash", "bilinear", 1.0),
        ("slices", "auto", "squash", "bilinear", 1.0),
        ("png", "1064/400,424/1500", "crop", "bicubic", 0.9),
    ],
)
def test_served_answers_are_those_of_the_evaluation(
    bundle: Predictor, slices: Path, tmp_path: Path, folder, window, fit, interpolation, crop
):
    root = slices.parent / folder
    plain = bundle.preprocessing
    rendered = dataclasses.replace(
        plain, window=window, fit=fit, interpolation=interpolation, crop=crop
    )
    model, context = served(dataclasses.replace(bundle, preprocessing=rendered), tmp_path)
    assert model.bundle.preprocessing == rendered
    dataset = load(str(root), model.bundle.preprocessing.rendering, seed=0)
    expected = model.bundle.answer(dataset.images(np.arange(24))).probabilities
    files = [(root / path).read_bytes() for path in dataset.frame["path"]]
    answers = model.predict(context, pd.DataFrame({"image": pd.Series(files, dtype=object)}))
    assert answers["error"].tolist() == [None] * 24
    found = [list(each.values()) for each in answers["probabilities"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_file_without_units_is_answered_with_an_error(bundle, tmp_path, image_file, pixels):
    rendered = dataclasses.replace(bundle.preprocessing, window=SOFT)
    model, context = served(dataclasses.replace(bundle, preprocessing=rendered), tmp_path)
    files = [image_file(image) for image in pixels(1, 1)]
    answers = model.predict(context, pd.DataFrame({"image": pd.Series(files, dtype=object)}))
    assert "window=40/400 needs grey values of more than 8 bits" in answers["error"][0]


def test_a_model_logged_before_has_the_rendering_of_that_time():
    before = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, image_size=32)
    assert before.rendering == Rendering(32)
    assert before.key == ((0.5,) * 3, (0.25,) * 3, 32)
    changed = dataclasses.replace(before, fit="pad", window=SOFT)
    assert changed.key == (*before.key, ("window", SOFT), ("fit", "pad"))


def test_window_and_fit_travel_with_a_trained_model(slices: Path, capsys):
    settings = TrainSettings(
        data=str(slices),
        architecture="small_resnet",
        weights="random",
        cutoff="head",
        image_size=32,
        window=f"{SOFT},{LUNG}",
        fit="pad",
    )
    train(settings)
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert f"window={SOFT},{LUNG}, fit=pad" in capsys.readouterr().err
    trained = load_bundle(f"runs:/{run.info.run_id}/model")
    assert trained.preprocessing.rendering == Rendering(32, f"{SOFT},{LUNG}", "pad")
    # the content does not depend on the rendering, so that other models can be compared
    assert load(str(slices), 32, seed=0).fingerprint == trained.fingerprint
