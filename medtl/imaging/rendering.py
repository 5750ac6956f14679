"""Image file to the square of pixels that a network gets: window, shape, interpolation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medtl.imaging.decode import decode
from medtl.imaging.pixels import resized
from medtl.imaging.window_syntax import AUTO, BILINEAR, CROP, PAD, SQUASH

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    BILINEAR: Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
INTERPOLATIONS = tuple(_RESAMPLING)


@dataclass(frozen=True)
class Rendering:
    """Rendering of image files as squares; equal in training and in the served model.

    Attributes:
        image_size: side S of the square, in pixels.
        window: `auto`, `percentiles` or linear windows (see `medtl.imaging.window_syntax`).
        fit: `squash` stretches the image to the square. `pad` keeps its aspect ratio and adds black
            at two sides. `crop` keeps it too, and takes the square in the middle.
        interpolation: one of `INTERPOLATIONS`; all but `nearest` are antialiased.
        crop: side of the square that `fit=crop` takes, as a share of the shorter side.
    """

    image_size: int
    window: str = AUTO
    fit: str = SQUASH
    interpolation: str = BILINEAR
    crop: float = 1.0

    @classmethod
    def of(cls, shape: int | Rendering) -> Rendering:
        """Returns a rendering as it is, and for a side in pixels the default one."""
        return cls(shape) if isinstance(shape, int) else shape

    @property
    def changes(self) -> tuple[tuple[str, object], ...]:
        """Names and values of the options that are not the default; part of keys."""
        return tuple(
            (field.name, getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name != "image_size" and getattr(self, field.name) != field.default
        )

    @property
    def line(self) -> str:
        """Line on the user's choices; '' where there are none."""
        chosen = [
            f"window={self.window}" if self.window != AUTO else "",
            f"fit={self.fit}" if self.fit != SQUASH else "",
        ]
        part = f", {self.crop:.1%} of the shorter side" if self.fit == CROP else ""
        return ", ".join(each for each in chosen if each) + part

    def of_file(self, data: bytes) -> np.ndarray:
        """Renders an image file: uint8 or uint16 [C, S, S].

        Raises:
            UnreadableImage: as in `medtl.imaging.decode`.
        """
        return self.square(decode(data, window=self.window))

    def square(self, pixels: np.ndarray) -> np.ndarray:
        """Renders decoded pixels [H, W] or [H, W, 3], after the window: [C, S, S] of their type."""
        height, width = pixels.shape[:2]
        size, resample = self.image_size, _RESAMPLING[self.interpolation]
        if self.fit == CROP:
            across, down = _middle(width, height, size, self.crop)
            box = (across[0], down[0], across[1], down[1])
            return resized(pixels, (size, size), resample, box)
        if self.fit == PAD:
            longer = max(width, height)
            inner = [max(1, round(each * size / longer)) for each in (width, height)]
            image = resized(pixels, (inner[0], inner[1]), resample)
            whole = np.zeros((len(image), size, size), image.dtype)
            left, top = ((size - each) // 2 for each in inner)
            whole[:, top : top + inner[1], left : left + inner[0]] = image
            return whole
        return resized(pixels, (size, size), resample)


def _middle(
    width: int, height: int, size: int, crop: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the square in the middle that `size` pixels cover, from left to right and down.

    Exactly the pixels of torchvision's `Resize(size / crop)` and `CenterCrop(size)`, whose first
    image would be huge for a narrow one: so no such image is made.
    """
    shorter = max(size, int(size / crop))
    sides = []
    for side in (width, height):
        whole = shorter * side // min(width, height)
        begin = round((whole - size) / 2)
        sides.append((begin * side / whole, (begin + size) * side / whole))
    return sides[0], sides[1]
