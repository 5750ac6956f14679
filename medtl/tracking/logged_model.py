"""Logging of a predictor as an MLflow model with its own code, and loading."""

from __future__ import annotations

import ast
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

# A tracking server is asked for each file of a model by itself, one after the other, and the whole
# package has four times as many files.


PACKAGE = Path(medtl.__file__).parent


def carry(script: Path, folder: Path) -> Path:
    """Copies all that `script` imports of this package below `folder`, as a package of its name.

    What is imported only where a function runs is copied too; what is imported only for type
    checkers is not.
    """
    carried = folder / PACKAGE.name
    for path in _files(script):
        copy = carried / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return carried


def _files(script: Path) -> set[Path]:
    """The files of this package that the script needs, itself among them where it is one."""
    needed, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path not in needed:
            needed.add(path)
            waiting += _imported(path)
    return {path for path in needed if path.is_relative_to(PACKAGE)}


def _imported(path: Path) -> Iterator[Path]:
    """The files of this package that a file imports by itself, and the packages they lie in."""
    for name in _names(ast.parse(path.read_text("utf-8"))):
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        for count in range(1, len(parts) + 1):
            place = PACKAGE.joinpath(*parts[1:count])
            yield from filter(Path.is_file, (place / "__init__.py", place.with_suffix(".py")))


def _names(node: ast.AST) -> Iterator[str]:
    """The modules imported in a piece of code; what is taken from one may be a module itself."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    if isinstance(node, ast.ImportFrom):
        yield node.module
        yield from (f"{node.module}.{each.name}" for each in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


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
            code_paths=[str(carry(SCRIPT, Path(folder, "code")))],
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
