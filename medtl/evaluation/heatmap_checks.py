"""Checks of heat maps: randomised weights, agreement of methods, deletion scores.

Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv 1810.03292: weights are randomised
from the output down, and maps before and after are compared by rank correlation. A map that hardly
changes depends on the image alone, not on the trained weights.
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

# Chosen here: the source compares curves and gives no bound.
HARDLY_CHANGED = 0.5
# Replaces initial weights that are all zero (the head of a ViT), which give no map.
FIRST_SPREAD = 0.02


def names_from(network: nn.Module, point: CutPoint, image_size: int) -> frozenset[str]:
    """Returns the names, in the network's state dict, of all from `point` on."""
    return frozenset(cut(copy.deepcopy(network), point, image_size).suffix.state_dict())


def randomised(network: nn.Module, fresh: nn.Module, lost: Collection[str], seed: int) -> nn.Module:
    """Copies `network` with the entries `lost` of its state dict taken from `fresh`.

    `fresh` is an untrained network of the same architecture. Batch norm statistics are replaced,
    too. Weights of `fresh` that are all zero are drawn (normal, standard deviation 0.02).
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
    """Computes Spearman's correlation of each map [N, H, W] with its counterpart: float64 [N].

    Pixels of equal heat share their rank. A constant counterpart gives 0, a constant map NaN.
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


BORDER = 1 / 8  # of each side of an image


def verdict(similarity: Interval, lost: str = "weights are randomised") -> str:
    """Formats the interpretation of the similarity of maps before and after randomisation.

    `lost` says what becomes of what was learned.
    """
    if np.isnan(similarity.value):
        return "no heat map has any heat"
    if similarity.value < HARDLY_CHANGED:
        return (
            f"maps change when {lost} (rank correlation {similarity}): "
            "they depend on the trained weights"
        )
    return f"maps hardly change when {lost} (rank correlation {similarity}): do not trust them"


def hottest_at_border(maps: np.ndarray) -> np.ndarray:
    """Flags maps [N, H, W] whose hottest place is in the outer eighth of the image: bool [N].

    >>> maps = np.zeros((3, 16, 16))
    >>> maps[0, 0, 8] = maps[1, 8, 8] = 1
    >>> hottest_at_border(maps).tolist()  # the last one is empty
    [True, False, False]
    """
    height, width = maps.shape[1:]
    row, column = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), width)
    inside = (np.minimum(row, height - 1 - row) >= height * BORDER) & (
        np.minimum(column, width - 1 - column) >= width * BORDER
    )
    return ~inside & maps.any(axis=(1, 2))


def _ranks(maps: np.ndarray) -> np.ndarray:
    """Ranks the pixels of each map, less their mean: [N, P]; all 0 for a constant map."""
    ranks = pd.DataFrame(maps.reshape(len(maps), -1)).rank(axis=1).to_numpy()
    return ranks - ranks.mean(axis=1, keepdims=True)


# A map is faithful if the score falls when its hottest squares are covered (deletion, after Samek
# et al. 2017, "Evaluating the visualization of what a deep neural network has learned", arXiv
# 1509.06321). Any covering may lower a score; the control covers the same shape elsewhere.


SQUARES = 16  # per side of an image; each is covered or not
HOTTEST = 0.1  # share of the squares that is covered
ELSEWHERE = 4  # shifts of the same shape, as a control
FIELDS = 8  # per side of an image; maps are compared by the mean heat of each


@dataclass(frozen=True)
class DeletionScores:
    """Drops in the score of M samples, float64 [M] each; NaN for a map without heat."""

    hottest: np.ndarray  # with the hottest tenth covered
    elsewhere: np.ndarray  # with the same shape covered elsewhere: mean of four shifts


def deletion_scores(
    scores: Scores, images: Tensor, classes: Tensor, heats: np.ndarray, seed: int
) -> DeletionScores:
    """Computes the drop in the score of each sample's class with its hottest squares covered.

    Covered squares get the image's mean. Fewer are covered if fewer have heat.

    Args:
        scores: images to scores, in eval mode.
        images: [M, 3, S, S] as input of a network, or cases [M, images x 3, S, S].
        classes: int [M].
        heats: [M, S, S], of cases [M, S, images x S].
        seed: draws the shifts, the same for each method.
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
    """Averages maps [M, S, images x S] over 8 x 8 fields of each image.

    Finer detail is the noise of a method.
    """
    images = maps.shape[2] // maps.shape[1]
    return nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(maps), (FIELDS, FIELDS * images)
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
        columns: dict[str, object] = {"method": method}
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
