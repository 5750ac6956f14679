"""How well strange images are told from those that a model was made for.

The yardstick of out-of-distribution detection (Hendrycks & Gimpel 2017, arXiv 1610.02136): how
often a strange image scores as stranger than a familiar one.
"""

from __future__ import annotations

import numpy as np
import torch

from medtl.evaluation.intervals import Interval, percentile_interval, resamplings
from medtl.evaluation.ranking import Ranking

CENTRE = 0.5  # of the side, that is left of a cropped image
TRIMMED = 0.85  # of the side, that is left of a trimmed one


def inverted(images: np.ndarray) -> np.ndarray:
    """Stored pixels [..., C, S, S] with black for white; an image that is all 0 (missing) stays."""
    white = np.iinfo(images.dtype).max
    present = images.any(axis=(-3, -2, -1), keepdims=True)
    return np.where(present, white - images, images)


def cropped(images: np.ndarray) -> np.ndarray:
    """The middle (half of each side) of stored pixels [..., C, S, S], enlarged to the whole."""
    return _middle(images, CENTRE)


def trimmed(images: np.ndarray) -> np.ndarray:
    """The middle (0.85 of each side) of stored pixels [..., C, S, S], enlarged to the whole."""
    return _middle(images, TRIMMED)


def turned(images: np.ndarray) -> np.ndarray:
    """Stored pixels [..., C, S, S] turned by 90 degrees, counter-clockwise."""
    return np.rot90(images, axes=(-2, -1)).copy()


def _middle(images: np.ndarray, share: float) -> np.ndarray:
    side = images.shape[-1]
    edge = round(side * (1 - share) / 2)
    middle = images[..., edge : side - edge, edge : side - edge].astype(np.float32)
    flat = torch.from_numpy(middle).reshape(-1, 1, *middle.shape[-2:])
    whole = torch.nn.functional.interpolate(flat, (side, side), mode="bilinear")
    return whole.round().numpy().astype(images.dtype).reshape(images.shape)


def told_apart(
    familiar: np.ndarray,
    strange: np.ndarray,
    patients: np.ndarray,
    seed: int,
    resamples: int = 2000,
) -> Interval:
    """AUROC of a score of strangeness: how often a strange image has more of it, ties half.

    Args:
        familiar: scores [N].
        strange: scores [M].
        patients: any codes [N + M], of the familiar images, then of the strange ones; equal ones
            are drawn together (as an image and its own inverted copy).
        seed: of the 95 % bootstrap interval over patients.
        resamples: bootstrap resamples.
    """
    is_strange = np.repeat([False, True], [len(familiar), len(strange)])
    ranking = Ranking.of(is_strange, np.concatenate([familiar, strange]))
    area, _ = ranking.areas(np.ones((1, len(is_strange))))
    draws = [ranking.areas(weights)[0] for weights in resamplings(patients, seed, resamples)]
    return percentile_interval(area, draws)
