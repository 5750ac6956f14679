"""Augmentation of a whole batch at once, fit for medical images: no colour shifts, no cut-outs.

Our own choice of ranges: small enough that a radiograph stays one a technician could have taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medtl.networks.preprocessing import _present


@dataclass(frozen=True)
class Augmentation:
    """Ranges from which each image of a batch draws its own change."""

    tilt: float = 10.0  # degrees, either way
    shift: float = 0.05  # share of the side, either way
    scale: float = 0.10  # share, either way
    exposure: float = 0.20  # gain and gamma, share, either way
    noise: float = 0.02  # most standard deviation of additive noise, in unit intensity
    mirror: bool = False  # left and right change sides: wrong where the heart's side tells

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changed copies of unit images [B, C, S, S]; `generator` is on the CPU."""
        moved = self._moved(images, generator)
        return self._exposed(moved, generator)

    def _moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count = len(images)
        angle = _either_way(count, math.radians(self.tilt), generator)
        factor = 1 + _either_way(count, self.scale, generator)
        offset = torch.stack([_either_way(count, 2 * self.shift, generator) for _ in "xy"], dim=1)
        flip = torch.ones(count)
        if self.mirror:
            flip -= 2 * (torch.rand(count, generator=generator) < 0.5).float()
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        matrices = torch.stack(
            [
                torch.stack([cos * flip, -sin, offset[:, 0]], dim=1),
                torch.stack([sin * flip, cos, offset[:, 1]], dim=1),
            ],
            dim=1,
        ).to(images.device)
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _exposed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count = len(images)
        gamma = torch.exp(_either_way(count, self.exposure, generator))
        gain = 1 + _either_way(count, self.exposure / 2, generator)
        sigma = self.noise * torch.rand(count, generator=generator)
        gamma, gain, sigma = (
            each.view(-1, 1, 1, 1).to(images.device) for each in (gamma, gain, sigma)
        )
        # the noise of a grey image is grey, and its randomness is the generator's on every device
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images.clamp(min=1e-6).pow(gamma) * gain + sigma * noise).clamp_(0, 1)


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "light": Augmentation(),
    "flip": Augmentation(mirror=True),
}


def _either_way(count: int, most: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, generator=generator) - 1) * most


def augmented(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Unit images [B, C, S, S] changed; those of a case [B, M, C, S, S] all alike."""
    if images.ndim == 4:
        return augmentation(images, generator)
    changed = augmentation(images.flatten(1, 2), generator)
    return changed.view_as(images) * _present(images)
