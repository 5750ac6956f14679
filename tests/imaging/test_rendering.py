"""Rendering: squeezed, padded or cut to the square, with the interpolation of the weights."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from medtl.imaging.bounded_decoding import BoundedDecoders
from medtl.imaging.pixels import UnreadableImage, square
from medtl.imaging.rendering import INTERPOLATIONS, Rendering
from medtl.imaging.window_syntax import FITS
from tests.imaging.test_windows import STORED


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_default_is_the_whole_image_stretched():
    pixels = noise(30, 50)
    assert np.array_equal(Rendering(16).square(pixels), square(pixels, 16))
    assert Rendering(16).changes == ()
    assert Rendering.of(16) == Rendering(16)


def test_padding_keeps_the_aspect_ratio_and_is_black():
    wide = np.full((20, 60), 200, np.uint8)
    padded = Rendering(30, fit="pad").square(wide)
    assert padded.shape == (1, 30, 30)
    assert (padded[0, 10:20] == 200).all()
    assert not padded[0, :10].any()
    assert not padded[0, 20:].any()
    tall = Rendering(30, fit="pad").square(np.full((60, 20), 60_000, np.uint16))
    assert np.array_equal(tall[0] > 0, padded[0].T > 0)


@pytest.mark.parametrize(("height", "width", "side", "crop"), [
    (200, 301, 64, 0.875), (333, 120, 96, 0.95), (50, 50, 64, 1.0), (481, 640, 224, 0.9),
])  # fmt: skip
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_a_crop_is_torchvisions_resize_and_centre_crop(name, height, width, side, crop):
    pixels = noise(height, width)
    steps = Resize(int(side / crop), InterpolationMode(name)), CenterCrop(side)
    expected = np.asarray(steps[1](steps[0](Image.fromarray(pixels)))).astype(int)
    found = Rendering(side, fit="crop", interpolation=name, crop=crop).square(pixels)
    assert np.abs(np.moveaxis(found, 0, 2) - expected).max() <= 1


def test_a_narrow_image_takes_no_memory():
    assert Rendering(64, fit="crop").square(np.zeros((1, 65_000), np.uint8)).shape == (1, 64, 64)
    assert Rendering(64, fit="pad").square(np.zeros((65_000, 1), np.uint8)).shape == (1, 64, 64)


def test_a_decoder_process_renders_the_same():
    decoders = BoundedDecoders(most=1)
    file = STORED["DICOM, signed with a slope"]
    for rendering in (
        Rendering(8, "40/400,-600/1500", "pad"),
        Rendering(8, "percentiles", "crop", "bicubic", 0.8),
        Rendering(8),
    ):
        assert np.array_equal(decoders.square(file, rendering), rendering.of_file(file))
    shallow = io.BytesIO()
    Image.fromarray(noise(4, 4)).save(shallow, "TIFF")
    with pytest.raises(UnreadableImage, match="window=40/400 needs grey"):
        decoders.square(shallow.getvalue(), Rendering(8, "40/400"))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([(), (3,)])),
    deep=st.booleans(),
    rendering=st.builds(
        Rendering,
        st.integers(1, 40),
        fit=st.sampled_from(FITS),
        interpolation=st.sampled_from(INTERPOLATIONS),
        crop=st.floats(0.05, 1.0),
    ),
)
def test_any_image_becomes_a_square(shape, deep, rendering):
    height, width, channels = shape
    pixels = np.full((height, width, *channels), 60_000 if deep else 200, np.uint16)
    found = rendering.square(pixels if deep else pixels.astype(np.uint8))
    side = rendering.image_size
    assert found.shape == (3 if channels else 1, side, side)
    inside = found if rendering.fit != "pad" else found[found > 0]
    assert (inside == pixels.flat[0]).all()
