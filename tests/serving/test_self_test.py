"""The self-test of a stored model: passed where it was written, failed by other weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from mlflow.pyfunc import PythonModelContext

from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor
from medtl.networks.registry import build
from medtl.serving import handler
from medtl.serving.handler import BUNDLE, ServedModel
from medtl.serving.self_test import SELF_TEST_FILE, run_self_test, write_self_test
from medtl.tracking.logged_model import example_images


@pytest.fixture
def folder(bundle: Predictor, tmp_path: Path, pixels, image_file) -> Path:
    bundle.save(tmp_path / BUNDLE)
    write_self_test(tmp_path / BUNDLE, bundle, [image_file(pixels(1, 3)[0])])
    return tmp_path / BUNDLE


def test_it_passes_where_it_was_written(bundle: Predictor, folder: Path):
    run_self_test(folder, bundle)


def test_a_model_of_colour_images_has_one(bundle: Predictor, tmp_path: Path):
    bundle.save(tmp_path / BUNDLE)
    write_self_test(tmp_path / BUNDLE, bundle, example_images(bundle.image_size, 3, 1))
    run_self_test(tmp_path / BUNDLE, bundle)


def test_other_scores_are_one_line(bundle: Predictor, folder: Path):
    other = build("squeezenet1_1", 3, bundle.image_size, seed=2).eval()
    with pytest.raises(MedtlError, match="this machine computes other scores") as refused:
        run_self_test(folder, dataclasses.replace(bundle, network=other))
    assert "\n" not in str(refused.value)


def test_a_damaged_one_is_one_line(bundle: Predictor, folder: Path):
    (folder / SELF_TEST_FILE).write_bytes(b"junk")
    with pytest.raises(MedtlError, match="is damaged"):
        run_self_test(folder, bundle)


def test_a_model_from_before_it_passes(bundle: Predictor, folder: Path):
    (folder / SELF_TEST_FILE).unlink()
    run_self_test(folder, bundle)


def test_a_case_has_one(bundle: Predictor, tmp_path: Path, pixels, image_file):
    network = build("late_fusion:small_resnet", 3, bundle.image_size, seed=0, modalities=2).eval()
    case = dataclasses.replace(
        bundle,
        architecture="late_fusion:small_resnet",
        network=network,
        modalities=("t1", "t2"),
        domain=None,
    )
    write_self_test(tmp_path, case, [image_file(image) for image in pixels(2, 3)])
    run_self_test(tmp_path, case)


def test_a_server_of_a_damaged_model_ends_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / SELF_TEST_FILE).write_bytes(b"junk")
    monkeypatch.setattr(handler, "is_server", lambda: True)
    with pytest.raises(
        SystemExit, match=r"^medtl: the self-test .* is damaged: log the model again$"
    ):
        ServedModel().load_context(PythonModelContext({BUNDLE: str(folder)}, None))
