"""Decoded pixels to the square that a network takes."""

from __future__ import annotations

import numpy as np
from PIL import Image


def square(pixels: np.ndarray, image_size: int) -> np.ndarray:
    """Resizes the whole image with antialiasing to [C, image_size, image_size].

    There is no cropping and no padding; the aspect ratio changes. `pixels` is the result of
    `decode`: uint8 or uint16, [H, W] (C is then 1) or [H, W, 3]; the type stays.
    """
    side = (image_size, image_size)
    if pixels.dtype == np.uint16:
        # Pillow resizes 16 bits only as single-channel floating point.
        channels = [pixels] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
        resized = np.stack(
            [
                Image.fromarray(channel.astype(np.float32)).resize(side, Image.Resampling.BILINEAR)
                for channel in channels
            ]
        )
        return np.clip(np.round(resized), 0, 65535).astype(np.uint16)
    resized = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.BILINEAR))
    return resized[None] if resized.ndim == 2 else np.moveaxis(resized, 2, 0)
