"""A map that comes from what was learned is lost with the weights; one that does not is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from medtl.evaluation.heatmap_checks import (
    mean_similarity,
    names_from,
    randomised,
    rank_correlations,
    verdict,
)
from medtl.evaluation.jackknife import Interval
from medtl.networks.cutoffs import resolve
from medtl.networks.registry import build


def test_rank_correlations_are_those_of_scipy():
    maps, others = np.random.default_rng(0).integers(0, 5, (2, 6, 4, 5)).astype(float)
    expected = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(rank_correlations(maps, others), expected)


def test_a_map_without_heat_has_no_order():
    heat, none = np.arange(6.0).reshape(1, 2, 3), np.zeros((1, 2, 3))
    assert rank_correlations(heat, none).tolist() == [0.0]
    assert np.isnan(rank_correlations(none, heat)).all()


@pytest.mark.parametrize("cutoff", ["head", "layer4", "all"])
def test_only_what_comes_after_the_point_is_lost(cutoff: str):
    trained, fresh = (build("resnet18", 2, image_size=64, seed=seed) for seed in (0, 1))
    with torch.no_grad():
        trained.bn1.running_mean += 1
        trained.layer4[1].bn2.running_var *= 3
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    names = names_from(trained, resolve(trained, "resnet18", cutoff), 64)
    changed = randomised(trained, fresh, names, seed=0)
    lost = {"head": ("fc.",), "layer4": ("layer4.", "fc."), "all": ("",)}[cutoff]
    new = fresh.state_dict()
    for name, value in changed.state_dict().items():
        torch.testing.assert_close(value, (new if name.startswith(lost) else before)[name])
        torch.testing.assert_close(trained.state_dict()[name], before[name], rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in trained.parameters())


class StartsAtZero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, kernel_size=3)
        self.head = nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))


def test_a_head_that_starts_at_zero_is_drawn():
    network, fresh = StartsAtZero(), StartsAtZero()
    names = names_from(network, resolve(network, "", "head"), 16)
    changed = randomised(network, fresh, names, seed=3)
    assert 0.001 < changed.head.weight.std() < 0.1
    again = randomised(network, fresh, names, seed=3)
    torch.testing.assert_close(again.head.weight, changed.head.weight)
    assert not fresh.head.weight.any()


def test_the_mean_has_an_interval_over_patients():
    correlations = np.random.default_rng(0).normal(0.2, 0.1, 40)
    with_a_gap = np.append(correlations, np.nan)
    found = mean_similarity(with_a_gap, np.arange(41))
    assert found.value == pytest.approx(correlations.mean())
    assert found.low < found.value < found.high
    width = 2 * 1.96 * correlations.std() / np.sqrt(40)
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    of_one = mean_similarity(correlations, np.zeros(40))
    assert np.isnan(of_one.low)
    assert np.isnan(mean_similarity(np.full(3, np.nan), np.arange(3)).value)


def test_the_verdict_is_in_words():
    assert "they depend on the trained weights" in verdict(Interval(0.12, 0.05, 0.2))
    assert "do not trust them" in verdict(Interval(0.8, 0.7, 0.9))
    assert "no heat map" in verdict(Interval(np.nan, np.nan, np.nan))
