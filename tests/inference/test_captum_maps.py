"""Occlusion and integrated gradients find a class at its place, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medtl.inference.captum_maps import Scores, integrated_gradients, occlusion
from medtl.networks.registry import build

METHODS = [occlusion, integrated_gradients]
SIDE = 32


class RedOrBlue(nn.Module):
    """Scores how much red (class 0) and how much blue (class 1) the images of a case have."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(3, 2, kernel_size=1, bias=False)
        with torch.no_grad():
            self.weigh.weight.copy_(torch.eye(3)[[0, 2]].view(2, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        each = images.unflatten(1, (-1, 3))
        return self.weigh(each.flatten(0, 1)).relu().unflatten(0, each.shape[:2]).sum(dim=(1, 3, 4))


def red_above_blue_below() -> Tensor:
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[:, 0, 0:8, 8:16] = 1
    images[:, 2, 24:32, 16:24] = 1
    return images


def hottest(heat: np.ndarray) -> tuple[int, int]:
    """The 8 x 8 patch with the most heat, as (row, column)."""
    patches = heat.reshape(4, 8, -1, 8).sum(axis=(1, 3))
    return tuple(int(i) for i in np.unravel_index(patches.argmax(), patches.shape))


@pytest.mark.parametrize("method", METHODS)
def test_each_class_is_found_at_its_place(method):
    network, images = RedOrBlue(), red_above_blue_below().repeat(2, 1, 1, 1)
    with torch.inference_mode():
        red, blue = method(network, images, torch.tensor([0, 1]))
    assert (red.shape, red.dtype) == ((SIDE, SIDE), np.float32)
    assert (hottest(red), hottest(blue)) == ((0, 1), (3, 2))
    for heat in (red, blue):
        assert (heat.min(), heat.max()) == (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_images_of_a_case_lie_side_by_side(method):
    even = torch.full((1, 3, SIDE, SIDE), 0.3)
    heat = method(RedOrBlue(), torch.cat([even, red_above_blue_below()], dim=1), 1)
    assert heat.shape == (1, SIDE, 2 * SIDE)
    assert hottest(heat[0]) == (3, 4 + 2)
    assert heat[0, :, :SIDE].max() < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_an_image_that_is_missing_has_no_heat(method):
    network = build("late_fusion:resnet18", classes=2, image_size=SIDE, seed=0, modalities=2).eval()
    images = torch.rand(2, 6, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images[:, :3] = 0
    heats = method(network, images, [0, 1])
    assert heats[:, :, SIDE:].max() == 1
    assert not heats[:, :, :SIDE].any()


class Rounding(RedOrBlue):
    """Scores that depend on the image no more than by their last digit."""

    def forward(self, images: Tensor) -> Tensor:
        return 7 + 1e-8 * super().forward(images)


def test_what_rounding_changes_is_cold():
    assert not occlusion(Rounding(), red_above_blue_below(), 0).any()


def test_occlusion_asks_anything_that_gives_scores_in_bounded_passes(monkeypatch):
    monkeypatch.setattr("medtl.inference.captum_maps.PIXELS", 10 * SIDE**2)
    network, asked = RedOrBlue(), []

    def scores(images: Tensor) -> Tensor:
        asked.append(len(images))
        return torch.from_numpy(np.round(network(images).detach().numpy()))

    known: Scores = scores
    assert hottest(occlusion(known, red_above_blue_below(), 0)[0]) == (0, 1)
    assert max(asked) == 10
    assert sum(asked) == 49 + 2
