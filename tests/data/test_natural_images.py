"""Natural images come in the size and the channels of the medical ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.data.sources.natural_images import natural_images
from medtl.errors import MedtlError, ParameterError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A colour, a grey and a 16-bit image, at unlike depths below a folder."""
    root = tmp_path / "nature"
    (root / "trees" / "old").mkdir(parents=True)
    random = np.random.default_rng(0)
    colour = np.zeros((20, 30, 3), np.uint8)
    colour[..., 0] = 200
    Image.fromarray(colour).save(root / "red.png")
    Image.fromarray(random.integers(0, 256, (24, 24)).astype(np.uint8)).save(
        root / "trees" / "grey.png"
    )
    deep = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(deep).save(root / "trees" / "old" / "deep.png")
    return root


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_of_photographs_need_no_folder(channels):
    images = natural_images("", 6, 16, channels, seed=0)
    assert images.shape == (6, channels, 16, 16)
    assert images.dtype == np.uint8
    assert len(np.unique(images, axis=0)) == 6
    assert images.std(axis=(2, 3)).min() > 1
    np.testing.assert_array_equal(images, natural_images("", 6, 16, channels, seed=0))
    assert not np.array_equal(images, natural_images("", 6, 16, channels, seed=1))


def test_a_folder_is_read_at_any_depth_in_the_channels_asked_for(folder):
    grey = natural_images(str(folder), 10, 12, 1, seed=0)
    assert grey.shape == (3, 1, 12, 12)
    assert (grey[0] == round(0.299 * 200)).all()
    assert grey[2].max() > 200
    colour = natural_images(str(folder), 10, 12, 3, seed=0)
    assert (colour[0, 0] == 200).all()
    assert not colour[0, 1:].any()
    np.testing.assert_array_equal(colour[1, 0], colour[1, 2])
    assert len(natural_images(str(folder), 2, 12, 1, seed=0)) == 2


def test_an_image_that_cannot_be_read_is_named_or_skipped(folder):
    (folder / "trees" / "torn.png").write_bytes(b"not an image")
    with pytest.raises(MedtlError, match=r"torn\.png.*unreadable=skip"):
        natural_images(str(folder), 10, 12, 1, seed=0)
    assert len(natural_images(str(folder), 10, 12, 1, seed=0, unreadable="skip")) == 3


def test_a_folder_without_images_is_a_wrong_parameter(tmp_path):
    for place in (tmp_path / "missing", tmp_path):
        with pytest.raises(ParameterError, match="images="):
            natural_images(str(place), 10, 12, 1, seed=0)
