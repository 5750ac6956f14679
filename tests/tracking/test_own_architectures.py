"""The project's own architectures as models that are kept, served and explained."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.inference.predictor import Predictor
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import build


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("parallel_cnn", 64),
        ("dual:small_resnet+squeezenet1_1", 64),
        ("transmed_ti:resnet18", 32),
        ("late_fusion", 128),
    ],
)
def test_a_loaded_bundle_answers_to_the_bit_as_the_saved_one(
    bundle: Predictor, architecture: str, side: int, tmp_path: Path
) -> None:
    saved = dataclasses.replace(
        bundle,
        architecture=architecture,
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3, side),
        network=build(architecture, 3, side, seed=1).eval(),
        domain=None,
    )
    saved.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 1, side, side)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.scores(images), saved.scores(images))
    classes = np.array([0, 1])
    if architecture.startswith("dual"):
        with pytest.raises(MedtlError, match="use larger images"):
            loaded.heatmaps(images, classes)
    else:
        assert all(png.startswith(b"\x89PNG") for png in loaded.heatmaps(images, classes))
