"""The square holds the whole image, smoothed before it is made small."""

from __future__ import annotations

import numpy as np

from medtl.imaging.pixels import square


def test_shapes_and_types():
    assert square(np.zeros((10, 30), np.uint8), 8).shape == (1, 8, 8)
    assert square(np.zeros((10, 30, 3), np.uint8), 8).shape == (3, 8, 8)
    deep = square(np.full((10, 30), 60000, np.uint16), 8)
    assert deep.shape == (1, 8, 8)
    assert deep.dtype == np.uint16
    assert (deep == 60000).all()


def test_nothing_is_cut_off():
    wide = np.zeros((20, 60), np.uint8)
    wide[:, :20] = 90
    wide[:, -20:] = 210
    assert square(wide, 9)[0, 4].tolist()[:2] == [90, 90]
    assert square(wide, 9)[0, 4].tolist()[-2:] == [210, 210]


def test_a_fine_pattern_becomes_its_mean():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for pixels, middle in ((stripes, 127.5), (stripes.astype(np.uint16) * 257, 32767.5)):
        inner = square(pixels, 8)[0, 1:-1, 1:-1]
        assert np.abs(inner / middle - 1).max() < 0.05


def test_sixteen_bits_agree_with_eight():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    eight = square(pixels, 16).astype(int)
    for channel in range(3):
        sixteen = square(pixels[..., channel].astype(np.uint16) * 257, 16)[0] / 257
        assert np.abs(sixteen - eight[channel]).max() <= 1
