"""Logging of a predictor as an MLflow model that contains its code, and loading."""

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
import yaml
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Map, TensorSpec
from PIL import Image

import medtl
from medtl.data.sources.phantoms import chest_xray
from medtl.errors import MedtlError
from medtl.imaging.window_syntax import AUTO, LinearWindow, linear_windows
from medtl.inference.predictor import SETTINGS_FILE, WEIGHTS_FILE, Predictor
from medtl.networks.registry import packages
from medtl.serving.handler import BUNDLE, HEATMAP, IDENTITY, ServedModel, columns
from medtl.serving.model_identity import MODEL_FILE, REGISTERED_FILE
from medtl.serving.request_parsing import EXPLAIN, REQUEST_ID
from medtl.serving.self_test import write_self_test

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
REQUIREMENTS = (
    "mlflow", "numpy", "pandas", "pillow", "psutil", "pydicom", "pylibjpeg", "pylibjpeg-openjpeg",
    "python-gdcm", "pyyaml", "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip
"""Packages that the served folders import, and MLflow."""
HYBRID = (*REQUIREMENTS, "captum", "scikit-learn", "skops")
ANSWERS = Schema(
    [
        ColSpec(DataType.string, "label", required=False),
        ColSpec(DataType.double, "probability", required=False),
        ColSpec(Map(DataType.double), "probabilities", required=False),
        ColSpec(DataType.string, "decision", required=False),
        ColSpec(DataType.boolean, "in_domain", required=False),
        ColSpec(Array(DataType.string), "prediction_set", required=False),
        ColSpec(DataType.string, "error", required=False),
        *(ColSpec(DataType.string, name, required=False) for name in IDENTITY),
        ColSpec(DataType.string, HEATMAP, required=False),
    ]
)
PARAMETERS = ParamSchema(
    [
        ParamSpec(EXPLAIN, DataType.boolean, default=False),
        ParamSpec(REQUEST_ID, DataType.string, default=""),
    ]
)


def signature(bundle: Predictor) -> ModelSignature:
    """Returns the inputs, outputs and parameters of the served model.

    Image columns are optional if cases may lack images.
    """
    needed = bundle.missing == "refuse" or not bundle.modalities
    images: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.binary, name, required=needed) for name in columns(bundle.modalities)
    ]
    return ModelSignature(Schema(images), ANSWERS, PARAMETERS)


def log_model(bundle: Predictor, example: Sequence[bytes], name: str = "model") -> ModelInfo:
    """Logs a predictor as a model in the active run.

    Weights are stored as safetensors, settings as JSON, the code as source files: the model
    contains no pickle, and `mlflow models serve` needs the requirements, but not medtl.

    Args:
        bundle: the predictor.
        example: contents of the image files of one sample; MLflow requests their prediction before
            it stores the model, and they are the model's self-test.
        name: name of the logged model.
    """
    with tempfile.TemporaryDirectory() as folder, _no_small_talk(), _same_path():
        kept = Path(folder, BUNDLE)
        bundle.save(kept)
        write_self_test(kept, bundle, example)
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
            pip_requirements=requirements(needed_packages(bundle)),
            metadata={"architecture": bundle.architecture, "classes": list(bundle.classes)},
        )


def needed_packages(bundle: Predictor) -> tuple[str, ...]:
    """Returns the packages that serve a model, with those of its architecture and its head."""
    served = REQUIREMENTS if bundle.tail is None else HYBRID
    return (*served, *packages(bundle.architecture))


def load_bundle(uri: str) -> Predictor:
    """Loads the predictor of `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/...`.

    The code stored with it is not downloaded: on a tracking server each file is a request.

    Raises:
        MedtlError: no such model, or not a model of medtl.
    """
    with _downloaded(uri, f"artifacts/{BUNDLE}") as folder:
        return Predictor.load(folder / "artifacts" / BUNDLE)


def load_served(uri: str) -> ServedModel:
    """Loads a model as a server does, with its identity and its self-test.

    Raises:
        MedtlError: no such model, not a model of medtl, or the self-test fails.
    """
    served = ServedModel()
    with _downloaded(uri, f"artifacts/{BUNDLE}", MODEL_FILE) as folder:
        served.load(folder / "artifacts" / BUNDLE)
    return served


@contextmanager
def _downloaded(uri: str, *places: str) -> Iterator[Path]:
    """Yields a temporary folder with files of a model, at their places in it.

    MLflow's file with name and version is added if the model is a registered one.

    Raises:
        MedtlError: no such model, or not a model of medtl.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _no_small_talk():
                repository = get_artifact_repository(uri)
                for place in places:
                    found = repository.download_artifacts(place, folder)
                    # of runs:/RUN/NAME they lie in a folder NAME
                    root = Path(found).parents[place.count("/")]
                if name := getattr(repository, "model_name", None):
                    version_of_it = getattr(repository, "model_version", None)
                    registered = {"model_name": name, "model_version": version_of_it}
                    Path(root, REGISTERED_FILE).write_text(yaml.safe_dump(registered), "utf-8")
        except (MlflowException, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise MedtlError(
                f"the model {uri} cannot be loaded: it is not there, or holds no model of medtl "
                f"({reason})"
            ) from error
        yield root


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
    """Pins packages to their installed versions.

    Local builds (`2.15.0+cpu`) are pinned to their release, which every package index has.
    """
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


@contextmanager
def _same_path() -> Iterator[None]:
    """Restores `sys.path`, to which MLflow adds the code of the model that it validates.

    Child processes would import this package from there, where it is incomplete.
    """
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _no_small_talk() -> Iterator[None]:
    """Silences MLflow's progress bars and its line on the example, but not its warnings."""
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


def example_images(side: int, channels: int, count: int, window: str = AUTO) -> list[bytes]:
    """Draws images similar to chest radiographs, as PNG files; deterministic.

    For linear windows they are grey TIFF files, whose values go from the lowest end of a window to
    the highest.

    Args:
        side: S, side in pixels.
        channels: 1 for grey, 3 for colour.
        count: number of images per sample.
        window: of the model, see `medtl.imaging.window_syntax`.
    """
    random = np.random.default_rng(0)
    drawn = (
        chest_xray.draw(random, chest_xray.Anatomy.drawn(random), (), min(side, _DRAWN))
        for _ in range(count)
    )
    windows = linear_windows(window)
    return [_tiff(grey, side, windows) if windows else _png(grey, side, channels) for grey in drawn]


def _tiff(grey: np.ndarray, side: int, windows: Sequence[LinearWindow]) -> bytes:
    low = min(each.centre - each.width / 2 for each in windows)
    high = max(each.centre + each.width / 2 for each in windows)
    values = np.asarray(Image.fromarray(grey).resize((side, side))) / 255 * (high - low) + low
    file = io.BytesIO()
    Image.fromarray(values.round().astype(np.int32)).save(file, "TIFF")
    return file.getvalue()


def _png(grey: np.ndarray, side: int, channels: int) -> bytes:
    grey = np.asarray(Image.fromarray(grey).resize((side, side)))
    pixels = grey if channels == 1 else (grey[..., None] * np.array(_TINT)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
