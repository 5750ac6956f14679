"""The logged model: what lies in it, and that it comes back."""

from __future__ import annotations

import ast
import dataclasses
import logging
import sys
import warnings
from importlib.metadata import packages_distributions, version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models.model import ModelInfo
from mlflow.types import DataType

from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor
from medtl.networks.registry import packages
from medtl.serving.handler import FIELDS, HEATMAP
from medtl.tracking.logged_model import (
    HYBRID,
    PACKAGE,
    REQUIREMENTS,
    SERVED,
    SERVED_FILES,
    load_bundle,
    log_model,
    needed_packages,
)


@pytest.fixture
def files(logged: ModelInfo, tmp_path: Path) -> Path:
    """The files of the logged model."""
    folder = tmp_path / "files"
    folder.mkdir()
    mlflow.artifacts.download_artifacts(artifact_uri=logged.model_uri, dst_path=str(folder))
    return folder


def test_nothing_in_the_model_is_pickled(files: Path):
    suffixes = {path.suffix for path in files.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".py", ".safetensors", ".txt", ".yaml"}


def test_the_model_carries_the_code_that_it_needs_and_no_more(files: Path):
    code = files / "code" / "medtl"
    carried = {path.relative_to(code).as_posix() for path in code.rglob("*.py")}
    assert {"__init__.py", "serving/handler.py", "inference/sklearn_head.py"} <= carried
    rooms = {path.partition("/")[0] for path in carried}
    assert rooms == {*SERVED, *SERVED_FILES}


def test_signature_and_example_are_those_of_the_interface(logged: ModelInfo, files: Path):
    (image,) = logged.signature.inputs
    assert (image.name, image.type, image.required) == ("image", DataType.binary, True)
    explain, request_id = logged.signature.params
    assert (explain.name, explain.dtype, explain.default) == ("explain", DataType.boolean, False)
    assert (request_id.name, request_id.dtype, request_id.default) == (
        "request_id",
        DataType.string,
        "",
    )
    names = [column.name for column in logged.signature.outputs]
    assert tuple(names) == (*FIELDS, HEATMAP)
    assert logged.saved_input_example_info["type"] == "dataframe"
    assert logged.metadata["classes"] == ["clear", "focal", "diffuse"]


def test_requirements_are_pinned_to_what_is_installed(files: Path):
    lines = (files / "requirements.txt").read_text().split()
    pins = dict(line.split("==") for line in lines)
    assert {"mlflow", "pydicom", "safetensors", "scipy", "torch", "torchvision"} <= set(pins)
    for package, pin in pins.items():
        assert pin == version(package).partition("+")[0]


def test_an_architecture_brings_its_packages(bundle: Predictor):
    assert needed_packages(bundle) == REQUIREMENTS
    of_timm = dataclasses.replace(bundle, architecture="timm:test_vit")
    assert needed_packages(of_timm) == (*REQUIREMENTS, "timm")


def test_every_package_that_the_served_code_imports_is_required():
    """Classical heads are imported by hybrids only, and timm for its networks; these require more.

    The client of the hub is a requirement of timm.
    """
    needed: dict[str, set[str]] = {}
    for path in (file for name in SERVED for file in (PACKAGE / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                needed.setdefault(name.partition(".")[0], set()).add(path.stem)
    distributions = packages_distributions()
    for module in needed.keys() - {PACKAGE.name, *sys.stdlib_module_names}:
        hybrid = needed[module] <= {"sklearn_head", "captum_maps"}
        if needed[module] == {"timm_models"}:
            assert module in (*packages("timm:test_vit"), "huggingface_hub")
            continue
        found = {each.lower() for each in distributions[module]}
        assert found & {*(HYBRID if hybrid else REQUIREMENTS)}, (module, needed[module])


def test_the_bundle_comes_back(logged: ModelInfo, bundle: Predictor, pixels):
    images = pixels(2, 1)
    loaded = load_bundle(logged.model_uri)
    np.testing.assert_array_equal(loaded.scores(images), bundle.scores(images))


def test_the_model_answers_through_mlflow(logged: ModelInfo, bundle: Predictor, pixels, image_file):
    images = pixels(2, 2)
    rows = pd.DataFrame({"image": [image_file(image) for image in images]})
    table = mlflow.pyfunc.load_model(logged.model_uri).predict(rows, params={"explain": True})
    expected = bundle.answer(images).probabilities.max(axis=1)
    np.testing.assert_allclose(table["probability"].astype(float), expected, rtol=1e-5)
    assert table["heatmap"].notna().all()


@pytest.mark.parametrize("uri", ["models:/nothing@champion", "models:/nothing/1", "runs:/0/model"])
def test_a_missing_model_is_one_line(uri: str, logged: ModelInfo):
    with pytest.raises(MedtlError, match="cannot be loaded") as refused:
        load_bundle(uri)
    assert uri in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_model_of_another_kind_is_one_line(logged: ModelInfo, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(MedtlError, match="holds no model of medtl"):
        load_bundle(str(tmp_path / "model"))


def test_logging_says_nothing_and_leaves_imports_as_they_are(
    logged: ModelInfo, bundle: Predictor, pixels, image_file, capfd: pytest.CaptureFixture
):
    experiment = mlflow.get_experiment_by_name("tests").experiment_id
    with mlflow.start_run(experiment_id=experiment), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # Python does not show these
        capfd.readouterr()
        before = list(sys.path)
        log_model(bundle, [image_file(pixels(1, 3)[0])])
        said = capfd.readouterr()
    assert said.out + said.err == ""
    assert sys.path == before, "where later processes look for the package"
    assert logging.getLogger("mlflow.pyfunc").level != logging.WARNING
