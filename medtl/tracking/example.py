"""Input example of a logged model: synthetic, since real images are of patients."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from medtl.data.phantoms import chest

_DRAWN = 128  # side in pixels before enlargement, as drawing larger images takes seconds
_TINT = (1.0, 0.8, 0.7)  # of a colour image


def example_images(side: int, channels: int, count: int) -> list[bytes]:
    """Draws images similar to chest radiographs, as PNG files; deterministic.

    Args:
        side: S, side in pixels.
        channels: 1 for grey, 3 for colour.
        count: number of images per sample.
    """
    random = np.random.default_rng(0)
    drawn = (
        chest.draw(random, chest.Anatomy.drawn(random), (), min(side, _DRAWN)) for _ in range(count)
    )
    return [_png(grey, side, channels) for grey in drawn]


def _png(grey: np.ndarray, side: int, channels: int) -> bytes:
    grey = np.asarray(Image.fromarray(grey).resize((side, side)))
    pixels = grey if channels == 1 else (grey[..., None] * np.array(_TINT)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
