"""Sanity check of heat maps by randomised weights: does a map depend on the training?

Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv 1810.03292: weights are randomised
from the scores down, and the rank correlation of the maps before and after is looked at. A map
that hardly changes shows the image, not what the network has learned of it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection

import numpy as np
import pandas as pd
import torch
from torch import nn

from medtl.evaluation.bounds import LEVEL, Interval, quantile
from medtl.networks.cut import cut
from medtl.networks.cutpoints import CutPoint

# Ours: the source looks at curves and names no bound.
HARDLY_CHANGED = 0.5
# Of weights that are all zero at first (the head of a ViT), which no map would come from.
FIRST_SPREAD = 0.02


def names_from(network: nn.Module, point: CutPoint, image_size: int) -> frozenset[str]:
    """Returns the names, in the network's state dict, of all from `point` on."""
    return frozenset(cut(copy.deepcopy(network), point, image_size).suffix.state_dict())


def randomised(network: nn.Module, fresh: nn.Module, lost: Collection[str], seed: int) -> nn.Module:
    """A copy of `network` with what is `lost` as in `fresh`, weights that learned nothing.

    `fresh` is of the same architecture, `lost` are names of its state dict: batch norm statistics
    are replaced too. Where the weights of `fresh` are all zero, they are drawn (normal, standard
    deviation 0.02).
    """
    changed = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    state = changed.state_dict()
    for name, value in fresh.state_dict().items():
        if name in lost:
            nothing = value.ndim > 1 and not value.any()
            drawn = FIRST_SPREAD * torch.randn(value.shape, generator=generator)
            state[name] = drawn if nothing else value
    changed.load_state_dict(state)
    return changed.eval()


def rank_correlations(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's correlation, over its places, of each map [N, H, W] with its other: float64 [N].

    Places of equal heat share their rank. Where the other is the same everywhere the correlation
    is 0: it has no order. Where the map itself is, there is nothing to lose: NaN.
    """
    first, second = (_ranks(each) for each in (maps, others))
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    products = (first * second).sum(axis=1)
    found = np.divide(products, spread, out=np.zeros(len(maps)), where=spread > 0)
    return np.where(first.any(axis=1), found, np.nan)


def mean_similarity(correlations: np.ndarray, groups: np.ndarray) -> Interval:
    """Averages `correlations` [N] without NaN, with a 95 % t interval over groups [N].

    The standard error is the linearised one of a cluster mean (Cochran 1977, "Sampling techniques",
    section 9A). NaN without correlations; the bounds are NaN with one group.
    """
    known = ~np.isnan(correlations)
    if not known.any():
        return Interval(np.nan, np.nan, np.nan)
    kept = correlations[known]
    _, codes = np.unique(groups[known], return_inverse=True)
    count, mean = int(codes.max()) + 1, float(kept.mean())
    if count == 1:
        return Interval(mean, np.nan, np.nan)
    sums = np.bincount(codes, weights=kept - mean)
    error = np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(kept)
    half = quantile(LEVEL, count - 1) * float(error)
    return Interval(mean, mean - half, mean + half)


def verdict(similarity: Interval, lost: str = "weights are randomised") -> str:
    """Formats the interpretation of the similarity of maps before and after randomisation.

    `lost` says what becomes of what was learned.
    """
    if np.isnan(similarity.value):
        return "no heat map has any heat: they say nothing"
    if similarity.value < HARDLY_CHANGED:
        return (
            f"maps change when {lost} (rank correlation {similarity}): "
            "they depend on what was learned"
        )
    return f"maps hardly change when {lost} (rank correlation {similarity}): do not trust them"


def _ranks(maps: np.ndarray) -> np.ndarray:
    """The ranks [N, P] of the places of each map, less their mean; all 0 where all are equal."""
    ranks = pd.DataFrame(maps.reshape(len(maps), -1)).rank(axis=1).to_numpy()
    return ranks - ranks.mean(axis=1, keepdims=True)
