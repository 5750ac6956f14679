"""Rules that every decoder shares: how large an image may be, which frame, how 16 bits are made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medtl.errors import MedtlError

LARGEST = 100_000_000
"""Pixels; an image with more is refused before it is decoded."""
LONGEST_SIDE = 65_535
"""Pixels, as many as JPEG and DICOM know: decoders keep books on each row."""
_BLOCK = 4_000_000  # pixels that are floating point at a time


class UnreadableImage(MedtlError):
    """One image cannot be read; the message says in one line why."""


def check_size(width: int, height: int) -> None:
    """Refuses an image that is empty, or larger than `LARGEST` pixels or `LONGEST_SIDE`.

    Raises:
        UnreadableImage: it is.
    """
    if width < 1 or height < 1:
        raise UnreadableImage(f"the image has no pixels ({width} x {height})")
    if width * height > LARGEST:
        raise UnreadableImage(
            f"the image has {width} x {height} pixels, more than the "
            f"{LARGEST // 1_000_000} megapixels allowed"
        )
    if max(width, height) > LONGEST_SIDE:
        raise UnreadableImage(
            f"the image has {width} x {height} pixels, and no side may be longer than "
            f"{LONGEST_SIDE:,}; cut it"
        )


def frame_place(frame: int, count: int, called: str) -> int:
    """The index of a frame (counted from 1) of a file that has `count`; a single one is always it.

    Raises:
        UnreadableImage: there are several, and not so many.
    """
    if count > 1 and frame > count:
        raise UnreadableImage(f"the file has {count} {called}s, and no {called} {frame}")
    return 0 if count <= 1 else frame - 1


def full_range(
    stored: np.ndarray, meaning: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> np.ndarray:
    """Values [H, W] of any type, from their own smallest and largest to 0 and 65535 (uint16).

    An image of one value becomes 0; a value that is no number counts as the smallest. The values
    are what `meaning` makes of what is stored.
    """
    extremes = []
    for block in _blocks(stored):
        values = meaning(block).astype(np.float64)
        finite = values[np.isfinite(values)]
        extremes += [finite.min(), finite.max()] if finite.size else []
    if not extremes:
        return np.zeros(stored.shape, np.uint16)
    low, high = min(extremes), max(extremes)

    def stretched(block: np.ndarray) -> np.ndarray:
        values = meaning(block).astype(np.float64)
        values[~np.isfinite(values)] = low
        return unit_to_uint16((values - low) / max(high - low, 1e-12))

    return by_blocks(stored, stretched)


def by_blocks(stored: np.ndarray, shown: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """uint16 [H, W]: what `shown` makes of some rows [h, W] after the other.

    The floating point in between takes many times the room of the image.
    """
    whole = np.empty(stored.shape, np.uint16)
    for block, place in zip(_blocks(stored), _blocks(whole), strict=True):
        place[...] = shown(block)
    return whole


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    rows = max(1, _BLOCK // max(1, values.shape[1]))
    return [values[begin : begin + rows] for begin in range(0, len(values), rows)]


def unit_to_uint16(values: np.ndarray) -> np.ndarray:
    """Values in 0..1 as uint16; what lies outside is clipped."""
    return np.round(np.clip(values, 0, 1) * 65535).astype(np.uint16)


def grey_if_grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] with three equal channels as [H, W]; anything else as it is."""
    if pixels.ndim == 2 or (pixels[..., :1] != pixels[..., 1:]).any():
        return pixels
    return np.ascontiguousarray(pixels[..., 0])
