"""Input of a network from stored pixels: scaled, three channels, normalised.

An image of a case that is all 0 is missing and remains all 0; each network of cases decides how to
represent it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medtl.imaging.rendering import Rendering
from medtl.imaging.window_syntax import AUTO, BILINEAR, SQUASH


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image for a network.

    Attributes:
        mean: subtracted from each of three channels with values from 0 to 1.
        std: divisor of each channel.
        image_size: side of the square in pixels; of published weights the one of their training.
        window: the user's choice, see `Rendering`.
        fit: the user's choice, see `Rendering`.
        interpolation: filter of the resize, of published weights the one of their training.
        crop: share of the shorter side that `fit=crop` takes, as published weights expect it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    window: str = AUTO
    fit: str = SQUASH
    interpolation: str = BILINEAR
    crop: float = 1.0

    @property
    def rendering(self) -> Rendering:
        """Rendering of image files."""
        return Rendering(self.image_size, self.window, self.fit, self.interpolation, self.crop)

    @property
    def key(self) -> tuple[object, ...]:
        """Everything that activations depend on; options at their default are left out."""
        return (self.mean, self.std, self.image_size, *self.rendering.changes)


def unit_images(raw: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Scales stored pixels [..., C, S, S] (uint8 or uint16) to float32 in 0..1."""
    depth = float(np.iinfo(raw.dtype).max)
    if raw.dtype == np.uint16:
        # torch has no arithmetic on uint16
        raw = raw.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(raw)).to(device).float().div_(depth)


def network_input(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalises unit images [B, 1 or 3, S, S] to float32 [B, 3, S, S], channels last in memory.

    The images of cases [B, M, 1 or 3, S, S] are joined along the channels: [B, M x 3, S, S].
    """
    mean = images.new_tensor(preprocessing.mean).view(3, 1, 1)
    std = images.new_tensor(preprocessing.std).view(3, 1, 1)
    normalised = (images - mean) / std
    if images.ndim == 5:
        normalised = (normalised * present(images)).flatten(1, 2)
    return normalised.contiguous(memory_format=torch.channels_last)


def present(images: Tensor) -> Tensor:
    """Returns [B, M, 1, 1, 1]: 0 for each missing image of a case, else 1."""
    return images.amax(dim=(2, 3, 4), keepdim=True).sign()
