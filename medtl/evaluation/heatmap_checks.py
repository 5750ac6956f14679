"""Checks of heat maps: randomised weights, agreement of methods, deletion scores.

Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv 1810.03292: weights are randomised
from the scores down, and the rank correlation of the maps before and after is looked at. A map
that hardly changes shows the image, not what the network has learned of it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medtl.evaluation.jackknife import LEVEL, Interval, quantile
from medtl.inference.captum_maps import Scores, even
from medtl.networks.cutoffs import CutPoint
from medtl.networks.partition import cut

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


# A map is faithful where the score falls when its hottest places are covered (deletion, after Samek
# et al. 2017, "Evaluating the visualization of what a deep neural network has learned", arXiv
# 1509.06321). Any covering may lower a score: ours is to compare with the same shape elsewhere.


SQUARES = 16  # a side, that are covered or not
HOTTEST = 0.1  # of the squares are covered
ELSEWHERE = 4  # places to which the same shape is moved, as a control
PLACES = 8  # a side of each image, by which maps are compared


@dataclass(frozen=True)
class DeletionScores:
    """Drops in the score of M samples, float64 [M] each; NaN for a map without heat."""

    hottest: np.ndarray  # where the hottest tenth is covered
    elsewhere: np.ndarray  # where the same shape is, at other places: the mean of four


def falls(
    scores: Scores, images: Tensor, classes: Tensor, heats: np.ndarray, seed: int
) -> DeletionScores:
    """Computes the drop in the score of each sample's class with its hottest squares covered.

    Covered means grey, each image at its own mean. Fewer squares are where fewer have heat.

    Args:
        scores: in eval mode, where it is a network.
        images: [M, 3, S, S] as a network takes them, or cases [M, images x 3, S, S].
        classes: int [M].
        heats: [M, S, S], of cases [M, S, images x S].
        seed: of the places elsewhere, the same for each method.
    """
    generator, found = np.random.default_rng(seed), []
    for image, index, heat in zip(images.split(1), classes.tolist(), heats, strict=True):
        moves = generator.integers(1, SQUARES, (ELSEWHERE, 2)).tolist()
        covered = _hottest(torch.from_numpy(heat).to(image.device), image.shape[1] // 3)
        if not covered.any():
            found.append((np.nan, np.nan))
            continue
        masks = [covered, *(covered.roll(move, dims=(1, 2)) for move in moves)]
        # one at a time: large images, five times together, are too many
        with torch.no_grad():
            before = scores(image)[0, index]
            after = torch.stack([scores(_without(image, mask))[0, index] for mask in masks])
        fall = (before - after).double().cpu().numpy()
        found.append((fall[0], fall[1:].mean()))
    hottest, elsewhere = np.array(found, np.float64).reshape(-1, 2).T
    return DeletionScores(hottest, elsewhere)


def coarse(maps: np.ndarray) -> np.ndarray:
    """Maps [M, S, images x S] by the mean heat of 8 x 8 places of each image, to be compared.

    What is finer than this is the grain of a method, which no two maps share.
    """
    images = maps.shape[2] // maps.shape[1]
    return nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(maps), (PLACES, PLACES * images)
    ).numpy()


def agreement(maps: np.ndarray, others: np.ndarray, groups: np.ndarray) -> Interval:
    """Computes the mean rank correlation of two methods' maps [M, S, images x S] on 8 x 8 fields.

    The 95 % interval is over groups [M]. Maps without heat are left out.
    """
    first, second = (coarse(each) for each in (maps, others))
    there = first.any(axis=(1, 2)) & second.any(axis=(1, 2))
    correlations = np.where(there, rank_correlations(first, second), np.nan)
    return mean_similarity(correlations, groups)


def method_table(
    heats: Mapping[str, np.ndarray], fallen: Mapping[str, DeletionScores], groups: np.ndarray
) -> pd.DataFrame:
    """Builds a table of one row per method: faithfulness, and agreement with other methods.

    Columns: `fall`, `fall_elsewhere`, `fall_more` (their difference), and `agreement_METHOD` for
    each method, all with 95 % bounds `_low` and `_high` over groups.
    """
    rows = []
    for method, maps in heats.items():
        each = fallen[method]
        measured = {
            "fall": mean_similarity(each.hottest, groups),
            "fall_elsewhere": mean_similarity(each.elsewhere, groups),
            "fall_more": mean_similarity(each.hottest - each.elsewhere, groups),
        }
        for other, others in heats.items():
            measured[f"agreement_{other}"] = agreement(maps, others, groups)
        columns = {"method": method}
        for name, found in measured.items():
            columns |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(columns)
    return pd.DataFrame(rows)


def faithfulness(more: Interval) -> str:
    """Formats the interpretation of the drop beyond that elsewhere."""
    if np.isnan(more.value):
        return "none has heat to cover"
    lowers = f"covering their hottest tenth lowers the score by {more} more than covering elsewhere"
    return lowers if more.low > 0 else f"{lowers}, which may be chance"


def _hottest(heat: Tensor, images: int) -> Tensor:
    """Returns the squares of a map [S, images x S] with the most heat: bool [images, 16, 16]."""
    each = torch.stack(heat.chunk(images, dim=1))
    squares = nn.functional.adaptive_avg_pool2d(each, SQUARES)
    most = round(HOTTEST * squares.numel())
    least = squares.flatten().topk(most).values[-1]
    return (squares >= least) & (squares > 0)


def _without(image: Tensor, covered: Tensor) -> Tensor:
    """Returns an image [1, images x 3, S, S] that is grey at the squares covered."""
    mask = nn.functional.interpolate(covered[None].to(image), image.shape[-2:])
    mask = mask.repeat_interleave(3, dim=1)
    return image * (1 - mask) + even(image) * mask
