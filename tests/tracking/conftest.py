"""A tiny real bundle, and an image file for it."""

from __future__ import annotations

import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.models.model import ModelInfo
from PIL import Image

from medtl.evaluation.domain import DomainReference
from medtl.networks.architectures import build
from medtl.networks.weights import Preprocessing
from medtl.tracking.bundle import Bundle
from medtl.tracking.models import log_model

SIDE = 64


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """squeezenet1_1 with random weights and three classes, with a domain reference."""
    without = Bundle(
        architecture="squeezenet1_1",
        classes=("clear", "focal", "diffuse"),
        preprocessing=Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), SIDE),
        weights="random",
        cutoff="head",
        data="phantoms",
        fingerprint="0123456789abcdef",
        temperature=1.5,
        thresholds=(0.3, 0.4, 0.3),
        network=build("squeezenet1_1", 3, SIDE, seed=1).eval(),
    )
    images = drawn(120, seed=2)
    train, valid = (without.compared(half) for half in (images[:80], images[80:]))
    reference = DomainReference.fit(train, valid, seed=3)
    return dataclasses.replace(without, domain=reference)


@pytest.fixture
def pixels() -> Callable[[int, int], np.ndarray]:
    """`pixels(count, seed)`: smooth grey images, uint8 [count, 1, SIDE, SIDE]."""
    return drawn


@pytest.fixture
def image_file() -> Callable[..., bytes]:
    """`image_file(image, kind="PNG")`: an image [1, H, W] as the bytes of a file."""

    def file(image: np.ndarray, kind: str = "PNG") -> bytes:
        written = io.BytesIO()
        Image.fromarray(image[0]).save(written, kind)
        return written.getvalue()

    return file


def drawn(count: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 8, 8)).astype(np.uint8)
    images = [Image.fromarray(each).resize((SIDE, SIDE)) for each in coarse]
    return np.stack([np.asarray(image) for image in images])[:, None]


@pytest.fixture(scope="session")
def filled_store(
    bundle: Bundle, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A tracking store with one logged model, and the model's URI."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        experiment = mlflow.create_experiment("tests", artifact_location=str(folder / "artifacts"))
        with mlflow.start_run(experiment_id=experiment):
            picture = io.BytesIO()
            Image.fromarray(drawn(1, 4)[0, 0]).save(picture, "PNG")
            model = log_model(bundle, [picture.getvalue()])
    return folder / "mlflow.db", model.model_uri


@pytest.fixture
def logged(
    filled_store: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModelInfo:
    """The logged model, in a copy of the store that is this test's own."""
    database, uri = filled_store
    copy = shutil.copy(database, tmp_path / "filled.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy}")
    return mlflow.models.get_model_info(uri)
