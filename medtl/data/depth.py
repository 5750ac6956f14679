"""Rules of all decoders: largest size, choice of frame, detection of grey images."""

from __future__ import annotations

import numpy as np

from medtl.errors import MedtlError

LARGEST = 100_000_000
"""Pixels; an image with more is refused before it is decoded."""
LONGEST_SIDE = 65_535
"""Pixels; the limit of JPEG and DICOM, as decoders allocate memory per row."""


class UnreadableImage(MedtlError):
    """One image cannot be read; the message says in one line why."""


def check_size(width: int, height: int) -> None:
    """Refuses an image that is empty or exceeds `LARGEST` pixels or `LONGEST_SIDE`.

    Raises:
        UnreadableImage: the size is not allowed.
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


def grey_if_grey(pixels: np.ndarray) -> np.ndarray:
    """[H, W, 3] with three equal channels as [H, W]; anything else as it is."""
    if pixels.ndim == 2 or (pixels[..., :1] != pixels[..., 1:]).any():
        return pixels
    return np.ascontiguousarray(pixels[..., 0])
