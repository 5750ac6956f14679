"""Several methods on the same images: do their maps agree, and which point at what matters?

A map is faithful where the score falls when its hottest places are covered (deletion, after Samek
et al. 2017, "Evaluating the visualization of what a deep neural network has learned", arXiv
1509.06321). Any covering may lower a score: ours is to compare with the same shape elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from medtl.evaluation.attribution import Scores, even
from medtl.evaluation.bounds import Interval
from medtl.evaluation.randomised import mean_similarity, rank_correlations

SQUARES = 16  # a side, that are covered or not
HOTTEST = 0.1  # of the squares are covered
ELSEWHERE = 4  # places to which the same shape is moved, as a control
PLACES = 8  # a side of each image, by which maps are compared


@dataclass(frozen=True)
class Falls:
    """Drops in the score of M samples, float64 [M] each; NaN for a map without heat."""

    hottest: np.ndarray  # where the hottest tenth is covered
    elsewhere: np.ndarray  # where the same shape is, at other places: the mean of four


def falls(scores: Scores, images: Tensor, classes: Tensor, heats: np.ndarray, seed: int) -> Falls:
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
    return Falls(hottest, elsewhere)


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
    heats: Mapping[str, np.ndarray], fallen: Mapping[str, Falls], groups: np.ndarray
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
