"""Augmentation of whole batches of medical images: geometry, exposure and noise.

The ranges are ours: small enough for a plausible radiograph. There are no colour shifts and no
cut-outs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medtl.networks.preprocessing import present


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes, drawn for each image separately."""

    tilt: float = 10.0  # degrees, either way
    shift: float = 0.05  # share of the side, either way
    scale: float = 0.10  # share, either way
    exposure: float = 0.20  # gain and gamma, share, either way
    noise: float = 0.02  # most standard deviation of additive noise, in unit intensity
    mirror: bool = False  # horizontal flip; wrong where the side of the heart matters

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Returns changed copies of unit images [B, C, S, S]; `generator` is on their device."""
        moved = self._moved(images, generator)
        return self._exposed(moved, generator)

    def _moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count = len(images)
        angle = _either_way(count, math.radians(self.tilt), generator)
        factor = 1 + _either_way(count, self.scale, generator)
        offset = torch.stack([_either_way(count, 2 * self.shift, generator) for _ in "xy"], dim=1)
        flip = torch.ones(count, device=generator.device)
        if self.mirror:
            mirrored = torch.rand(count, generator=generator, device=generator.device) < 0.5
            flip -= 2 * mirrored.float()
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        matrices = torch.stack(
            [
                torch.stack([cos * flip, -sin, offset[:, 0]], dim=1),
                torch.stack([sin * flip, cos, offset[:, 1]], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _exposed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count = len(images)
        gamma = torch.exp(_either_way(count, self.exposure, generator))
        gain = 1 + _either_way(count, self.exposure / 2, generator)
        sigma = self.noise * torch.rand(count, generator=generator, device=generator.device)
        gamma, gain, sigma = (each.view(-1, 1, 1, 1) for each in (gamma, gain, sigma))
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        return (images.clamp(min=1e-6).pow(gamma) * gain + sigma * noise).clamp_(0, 1)


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "light": Augmentation(),
    "flip": Augmentation(mirror=True),
}
USUAL = "light"  # where nothing chooses
SEARCHED = (USUAL, "none")
"""Augmentations that a search chooses among. Mirroring is left to the user: it is wrong where the
side matters."""


def _either_way(count: int, most: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, generator=generator, device=generator.device) - 1) * most


def augmented(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Augments unit images [B, C, S, S]; the images of a case [B, M, C, S, S] change alike."""
    if images.ndim == 4:
        return augmentation(images, generator)
    changed = augmentation(images.flatten(1, 2), generator)
    return changed.view_as(images) * present(images)
