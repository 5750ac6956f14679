"""Decoded pixels: size limits, resizing to a square, remarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medtl.errors import MedtlError

LARGEST = 100_000_000
"""Largest number of pixels; an image with more is refused before it is decoded."""
LONGEST_SIDE = 65_535
"""Longest side in pixels; the limit of JPEG and DICOM, as decoders allocate memory per row."""


class UnreadableImage(MedtlError):
    """Error of one image that cannot be read; the message is one line."""


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
    """Returns the index of a frame (counted from 1) in a file of `count` frames.

    A file of one frame gives that one for any number.

    Raises:
        UnreadableImage: the file has several frames, but fewer than `frame`.
    """
    if count > 1 and frame > count:
        raise UnreadableImage(f"the file has {count} {called}s, and no {called} {frame}")
    return 0 if count <= 1 else frame - 1


def grey_if_grey(pixels: np.ndarray) -> np.ndarray:
    """Reduces [H, W, 3] with three equal channels to [H, W]; returns other arrays unchanged.

    >>> grey_if_grey(np.full((2, 2, 3), 7)).shape
    (2, 2)
    """
    if pixels.ndim == 2 or (pixels[..., :1] != pixels[..., 1:]).any():
        return pixels
    return np.ascontiguousarray(pixels[..., 0])


def square(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Resizes the whole image with antialiasing to [C, image_size, image_size].

    There is no cropping and no padding; the aspect ratio changes. `pixels` is the result of
    `decode`: uint8 or uint16, [H, W] (C is then 1) or [H, W, 3]; the type stays.
    """
    return resized(pixels, (image_size, image_size))


def resized(
    pixels: np.ndarray,
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.BILINEAR,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes an image, or the part of it in `box`, to [C, height, width] of the same type.

    Args:
        pixels: as `square` takes them.
        size: width and height.
        resample: filter.
        box: left, top, right and bottom in pixels; None for the whole image.
    """
    if pixels.dtype == np.uint16:
        # Pillow resizes 16 bits only as single-channel floating point.
        channels = [pixels] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        deep = np.stack(
            [
                np.asarray(Image.fromarray(channel.astype(np.float32)).resize(size, resample, box))
                for channel in channels
            ]
        )
        return np.clip(np.round(deep), 0, 65535).astype(np.uint16)
    image = np.asarray(Image.fromarray(pixels).resize(size, resample, box))
    return image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)


SEVERAL = "of several pages or frames of a picture the first is taken (frames=first)"
"""Remark on a TIFF, GIF, PNG, WebP or JPEG with several pages or frames."""


@dataclass(frozen=True)
class Decoded:
    """Pixels of an image file, and remarks on how they were decoded."""

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def counted(paths: Sequence[str], remarks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Formats a line per remark on N images: number of images, and the first paths."""
    having: dict[str, list[str]] = {}
    for path, each in zip(paths, remarks, strict=True):
        for remark in each:
            having.setdefault(remark, []).append(path)
    return tuple(
        f"{remark}: {len(found)} of {len(paths)} images "
        f"({', '.join(found[:2])}{', ...' if len(found) > 2 else ''})"
        for remark, found in having.items()
    )
