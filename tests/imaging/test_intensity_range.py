"""Deep images are stretched to the whole range, without a few outliers."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.imaging.intensity_range import NARROW_RANGE, NO_NUMBERS, WITHOUT_OUTLIERS, full_range


def values(low: int, high: int, side: int = 64, dtype: type = np.uint16) -> np.ndarray:
    """Draws noise that covers a range."""
    noise = np.random.default_rng(0).integers(low, high, (side, side), endpoint=True)
    noise.flat[:2] = low, high
    return noise.astype(dtype)


def stretched(image: np.ndarray) -> np.ndarray:
    """Stretches an image from its smallest and largest value to 0 and 65535."""
    low, high = float(image.min()), float(image.max())
    return np.round((image.astype(np.float64) - low) / (high - low) * 65535).astype(np.uint16)


@pytest.mark.parametrize("outliers", [[65535], [0], [0, 65535], [65535] * 4, [60000, 65535]])
def test_far_outliers_do_not_count_for_the_range(outliers):
    image = values(32000, 33000)
    expected = stretched(image)
    image.flat[10 : 10 + len(outliers)] = outliers
    decoded = full_range(image)
    assert decoded.remarks == (WITHOUT_OUTLIERS,)
    others = np.ones(image.size, bool)
    others[10 : 10 + len(outliers)] = False
    assert np.array_equal(decoded.pixels.flat[others], expected.flat[others])
    clipped = [65535 if value > 33000 else 0 for value in outliers]
    assert decoded.pixels.flat[10 : 10 + len(outliers)].tolist() == clipped


def test_twelve_bits_with_a_marker_of_sixteen():
    image = values(0, 4095, 128)
    expected = stretched(image)
    image[3, 4:16] = 65535
    decoded = full_range(image)
    assert decoded.remarks == (WITHOUT_OUTLIERS,)
    image[3, 4:16] = 0
    assert np.array_equal(decoded.pixels[image > 0], expected[image > 0])


def test_fill_values_of_floating_point():
    image = values(0, 1000, dtype=np.float32) / 1000
    expected = stretched(image)
    image[5, 5] = -3.4e38
    decoded = full_range(image)
    assert decoded.remarks == (WITHOUT_OUTLIERS,)
    expected[5, 5] = 0
    assert np.array_equal(decoded.pixels, expected)


def ordinary() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:128, :128] / 128
    generator = np.random.default_rng(1)
    dark = generator.normal(300, 20, (128, 128))
    # a bright dot with soft edges: one value in a thousand is far from the rest
    dot = 60000 * np.exp(-((y - 0.5) ** 2 + (x - 0.5) ** 2) / 0.0001)
    crossed = np.full((128, 128), 500.0)
    crossed[:, 60] = 65535
    return {
        "noise": values(0, 65535, 128),
        "a narrow range": values(1000, 1400, 128),
        "a ramp": (x * 60000).astype(np.uint16),
        "mostly dark": np.clip(65535 * x**12, 0, 65535).astype(np.uint16),
        "a bright dot": np.clip(dark + dot, 0, 65535).astype(np.uint16),
        "a bright line": crossed.astype(np.uint16),
        "two values": (values(0, 1, 128) * 65535).astype(np.uint16),
        "a few values": np.array([[0, 1], [2, 65535]], np.uint16),
    }


@pytest.mark.parametrize("name", ordinary())
def test_ordinary_images_keep_their_whole_range(name):
    image = ordinary()[name]
    decoded = full_range(image)
    assert np.array_equal(decoded.pixels, stretched(image))
    assert WITHOUT_OUTLIERS not in decoded.remarks
    assert decoded.remarks == ((NARROW_RANGE,) if name == "a bright dot" else ())


def test_outliers_at_many_values_are_told_and_not_cut():
    image = values(0, 500, 128)
    image.flat[:16] = np.linspace(2000, 65535, 16)
    decoded = full_range(image)
    assert decoded.remarks == (NARROW_RANGE,)
    assert np.array_equal(decoded.pixels, stretched(image))


def test_one_value_with_a_few_others_keeps_them():
    image = np.full((64, 64), 7, np.uint16)
    image[2, 2] = 60000
    assert full_range(image).pixels[2, 2] == 65535
    assert full_range(image).pixels[0, 0] == 0


def test_no_number_is_black_and_told():
    image = np.array([[np.nan, 1.0], [np.inf, 3.0]], np.float32)
    decoded = full_range(image)
    assert decoded.remarks == (NO_NUMBERS,)
    assert decoded.pixels.tolist() == [[0, 0], [0, 65535]]
    nothing = full_range(np.full((2, 2), np.nan))
    assert nothing.remarks == (NO_NUMBERS,)
    assert not nothing.pixels.any()


def test_a_part_may_be_left_out_and_a_meaning_given():
    image = values(0, 100, 64)
    image[:8] = 9000
    decoded = full_range(image, lambda stored: -2.0 * stored, image == 9000)
    assert decoded.remarks == ()
    turned = 65535 - stretched(image[8:]).astype(int)
    assert abs(decoded.pixels[8:] - turned).max() <= 1
    assert not decoded.pixels[:8].any()


def test_large_images_are_stretched_in_parts(monkeypatch: pytest.MonkeyPatch):
    image = values(32000, 33000)
    image[9, 9] = 65535
    whole = full_range(image)
    monkeypatch.setattr("medtl.imaging.intensity_range._BLOCK", 640)
    parts = full_range(image)
    assert np.array_equal(whole.pixels, parts.pixels)
    assert whole.remarks == parts.remarks == (WITHOUT_OUTLIERS,)
