"""Rates over images, with 95 % intervals."""

from __future__ import annotations

import math

import numpy as np

from medtl.evaluation.bounds import LEVEL, Interval, quantile, score_bounds


def rate(happened: np.ndarray, groups: np.ndarray) -> Interval:
    """Computes the share of true `happened` bool [N], with its 95 % interval.

    With one image per group (`groups`, any codes [N]) the interval is Wilson's (1927). Otherwise it
    is Wilson's for the effective number of images, given by the variance over groups, with the
    quantile of Student's t (Korn & Graubard 1998, Survey Methodology 24:193, there with the
    interval of Clopper & Pearson). That number is at most the number of images; for a share of
    exactly 0 or 1 it is the number of groups.

    Raises:
        ValueError: no images.
    """
    if len(happened) == 0:
        raise ValueError("no image to count")
    _, codes = np.unique(groups, return_inverse=True)
    share, count = float(happened.mean()), int(codes.max()) + 1
    if count == len(happened) or share in (0.0, 1.0):
        return wilson(share, count)
    if count == 1:
        return Interval(share, math.nan, math.nan)
    sums = np.bincount(codes, weights=happened - share)
    variance = np.square(sums).sum() * count / (count - 1) / len(happened) ** 2
    most = len(happened)
    effective = min(most, share * (1 - share) / variance) if variance > 0 else most
    return Interval(share, *score_bounds(share, effective, quantile(LEVEL, count - 1)))


def wilson(share: float, count: int) -> Interval:
    """The share of `count` independent cases with its 95 % score interval.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", J. Am.
    Stat. Assoc. 22:209.
    """
    return Interval(share, *score_bounds(share, count, quantile(LEVEL, math.inf)))
