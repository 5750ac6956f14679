"""Logging of a predictor as an MLflow model with its own code, and loading."""

from __future__ import annotations

import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map
from PIL import Image

import medtl
from medtl.data.sources.phantoms import chest_xray
from medtl.errors import MedtlError
from medtl.inference.predictor import SETTINGS_FILE, WEIGHTS_FILE, Predictor
from medtl.serving.handler import BUNDLE, HEATMAP, columns

PACKAGE = Path(medtl.__file__).parent
SERVED = ("imaging", "networks", "inference", "serving")  # folders that serve a model
SERVED_FILES = ("__init__.py", "errors.py", "label_syntax.py")


def copy_served_code(folder: Path) -> Path:
    """Copies the folders and modules that serve a model below `folder`, as a package.

    Returns the folder of the package.
    """
    copy = folder / PACKAGE.name
    copy.mkdir(parents=True)
    for name in SERVED:
        shutil.copytree(PACKAGE / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SERVED_FILES:
        shutil.copyfile(PACKAGE / name, copy / name)
    return copy


SCRIPT = PACKAGE / "serving" / "entry_script.py"
# All that serving imports, and MLflow, which serves.
REQUIREMENTS = (
    "mlflow", "numpy", "pandas", "pillow", "psutil", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg",
    "python-gdcm", "safetensors", "torch", "torchvision",
)  # fmt: skip
HYBRID = (*REQUIREMENTS, "captum", "scikit-learn", "skops")
ANSWERS = Schema(
    [
        ColSpec(DataType.string, "label", required=False),
        ColSpec(DataType.double, "probability", required=False),
        ColSpec(Map(DataType.double), "probabilities", required=False),
        ColSpec(DataType.string, "decision", required=False),
        ColSpec(DataType.boolean, "in_domain", required=False),
        ColSpec(DataType.string, "error", required=False),
        ColSpec(DataType.string, HEATMAP, required=False),
    ]
)
PARAMETERS = ParamSchema([ParamSpec("explain", DataType.boolean, default=False)])


def signature(bundle: Predictor) -> ModelSignature:
    """What the served model takes and answers; images that may be missing may be left out."""
    needed = bundle.missing == "refuse" or not bundle.modalities
    images = [
        ColSpec(DataType.binary, name, required=needed) for name in columns(bundle.modalities)
    ]
    return ModelSignature(Schema(images), ANSWERS, PARAMETERS)


def log_model(bundle: Predictor, example: Sequence[bytes], name: str = "model") -> ModelInfo:
    """Logs `bundle` in the active run as the model that is served.

    The weights are safetensors, the settings JSON, the code is what it needs of this package's
    source: nothing is pickled, and `mlflow models serve` needs the requirements but not medtl.
    `example` is what the image files of one sample hold; MLflow answers it once, as a server would,
    before the model is kept.
    """
    with tempfile.TemporaryDirectory() as folder, _no_small_talk(), _same_path():
        kept = Path(folder, BUNDLE)
        bundle.save(kept)
        return mlflow.pyfunc.log_model(
            name=name,
            python_model=str(SCRIPT),
            artifacts={BUNDLE: str(kept)},
            code_paths=[str(copy_served_code(Path(folder, "code")))],
            signature=signature(bundle),
            input_example=(
                pd.DataFrame([example], columns=columns(bundle.modalities)),
                {"explain": False},
            ),
            pip_requirements=requirements(REQUIREMENTS if bundle.tail is None else HYBRID),
            metadata={"architecture": bundle.architecture, "classes": list(bundle.classes)},
        )


def load_bundle(uri: str) -> Predictor:
    """The bundle in a model of MLflow: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/...`.

    The code beside it is left where it is: on a tracking server each file is a request.

    Raises:
        MedtlError: there is no such model, or it is not one of medtl.
    """
    with tempfile.TemporaryDirectory() as folder, _no_small_talk():
        try:
            bundle = get_artifact_repository(uri).download_artifacts(f"artifacts/{BUNDLE}", folder)
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise MedtlError(
                f"the model {uri} cannot be loaded: it is not there, or holds no model of medtl "
                f"({reason})"
            ) from error
        return Predictor.load(Path(bundle))


def check_files(uri: str) -> None:
    """Checks that the files of a bundle exist, without reading them.

    Raises:
        MedtlError: missing files.
    """
    try:
        repository = get_artifact_repository(uri)
        found = {Path(each.path).name for each in repository.list_artifacts(f"artifacts/{BUNDLE}")}
    except (MlflowException, OSError) as error:
        raise MedtlError(f"{uri} is not there ({' '.join(str(error).split())[:300]})") from error
    if not {SETTINGS_FILE, WEIGHTS_FILE} <= found:
        place = getattr(repository, "repo", repository).artifact_uri
        raise MedtlError(f"the files of {uri} are not in {place}")


def requirements(packages: Sequence[str]) -> list[str]:
    """The packages that serving needs, pinned to the versions that are installed here.

    Local builds (`2.15.0+cpu`) are pinned to the release they were built from, which every
    package index has.
    """
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


@contextmanager
def _same_path() -> Iterator[None]:
    """Takes from the path of imports what MLflow puts there: the code of a model that it tries.

    Processes that this one begins later would look for this package there, and not find all of it.
    """
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _no_small_talk() -> Iterator[None]:
    """Without MLflow's bars for copying small files and its line that an example is checked.

    Its warnings are still shown.
    """
    logger = logging.getLogger("mlflow.pyfunc")
    level, bars = logger.level, MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.get_raw()
    logger.setLevel(logging.WARNING)
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    try:
        yield
    finally:
        logger.setLevel(level)
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.unset()
        if bars is not None:
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(bars)


_DRAWN = 128  # side in pixels before enlargement, as drawing larger images takes seconds
_TINT = (1.0, 0.8, 0.7)  # of a colour image


def example_images(side: int, channels: int, count: int) -> list[bytes]:
    """Draws images similar to chest radiographs, as PNG files; deterministic.

    Args:
        side: S, side in pixels.
        channels: 1 for grey, 3 for colour.
        count: number of images per sample.
    """
    random = np.random.default_rng(0)
    drawn = (
        chest_xray.draw(random, chest_xray.Anatomy.drawn(random), (), min(side, _DRAWN))
        for _ in range(count)
    )
    return [_png(grey, side, channels) for grey in drawn]


def _png(grey: np.ndarray, side: int, channels: int) -> bytes:
    grey = np.asarray(Image.fromarray(grey).resize((side, side)))
    pixels = grey if channels == 1 else (grey[..., None] * np.array(_TINT)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
