"""One image file of a data set: decoded, rendered as a square, and described in a row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medtl.imaging.decode import in_window, values_of
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.rendering import Rendering
from medtl.imaging.window_syntax import AUTO

ImageFile = tuple[Path | None, int]
"""Path of an image file, None where it is missing, and its frame from 1."""


@dataclass(frozen=True)
class DecodedImage:
    """Image rendered as a square, and its row in the index of the pixel cache.

    Attributes:
        pixels: [C, S, S], None if the image is missing or unreadable.
        row: hash of the pixels at full size, width, height, mode, reason, remarks.
    """

    pixels: np.ndarray | None
    row: tuple[str, int, int, str, str, str]


def decode_image(image: ImageFile, rendering: Rendering) -> DecodedImage:
    """Decodes and renders one image; the reason is in the row where it cannot be read."""
    file, frame = image
    if file is None:
        return DecodedImage(None, ("", 0, 0, "", "", ""))
    try:
        values = values_of(file.read_bytes(), frame)
        plain = in_window(values, AUTO)
        decoded = plain if rendering.window == AUTO else in_window(values, rendering.window)
    except (UnreadableImage, OSError) as error:
        return unreadable(error)
    pixels = plain.pixels
    content = hashlib.blake2b(repr((pixels.shape, pixels.dtype)).encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels).data)
    deep = "deep grey" if pixels.dtype == np.uint16 else "grey"
    row = (
        content.hexdigest(),
        pixels.shape[1],
        pixels.shape[0],
        "colour" if pixels.ndim == 3 else deep,
        "",
        "\n".join(decoded.remarks),
    )
    return DecodedImage(rendering.square(decoded.pixels), row)


def unreadable(error: Exception) -> DecodedImage:
    """Returns the image of a file that cannot be read, with the reason."""
    return DecodedImage(None, ("", 0, 0, "", " ".join(str(error).split()), ""))
