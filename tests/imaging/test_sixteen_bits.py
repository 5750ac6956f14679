"""Sixteen bits stay sixteen bits from the file to the numbers that are normalised."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from medtl.data.loading import load
from medtl.imaging.decode import decode
from medtl.networks.preprocessing import unit_images

SIDE = 8


def deep(seed: int) -> np.ndarray:
    """Noise of 16 bits that uses the whole range, and one value beside the darkest."""
    values = np.random.default_rng(seed).integers(2, 65535, (SIDE, SIDE), dtype=np.uint16)
    values[0, :3] = 0, 1, 65535
    return values


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_one_step_of_65535_reaches_the_network(tmp_path: Path, kind: str):
    for seed in range(20):
        place = tmp_path / "clinic" / "ab"[seed % 2] / f"{seed}.{kind}"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(deep(seed)).save(place)
    dataset = load(str(tmp_path / "clinic"), SIDE, seed=0)
    stored = dataset.images(np.arange(20))
    assert stored.dtype == np.uint16
    units = unit_images(stored).numpy()
    for index, path in enumerate(dataset.frame["path"]):
        expected = deep(int(Path(path).stem))
        assert np.array_equal(stored[index, 0], expected)
        assert np.array_equal(np.round(units[index, 0] * 65535), expected)
        assert units[index, 0, 0, 1] - units[index, 0, 0, 0] == pytest.approx(1 / 65535, rel=1e-5)


def test_a_tiff_whose_zero_is_white_is_turned():
    file = io.BytesIO()
    stored = np.array([[0, 16384, 65535]], np.uint16)
    Image.fromarray(stored).save(file, "TIFF", tiffinfo={PHOTOMETRIC_INTERPRETATION: 0})
    assert decode(file.getvalue()).tolist() == [[65535, 49151, 0]]
