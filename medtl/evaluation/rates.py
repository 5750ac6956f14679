"""How often something happens to an image, with a 95 % interval."""

from __future__ import annotations

import math

import numpy as np

from medtl.evaluation.intervals import Interval, resamplings

NORMAL_QUANTILE = 1.959964  # the 97.5 % quantile of the normal distribution


def rate(happened: np.ndarray, patients: np.ndarray, seed: int, resamples: int = 2000) -> Interval:
    """The share of images to which it happened, `happened` bool [N], with its 95 % interval.

    Where patients (any codes, [N]) have several images, the interval is the percentile bootstrap
    over patients. Where each image counts as a patient of its own it is Wilson's (1927). A share of
    exactly 0 or 1 has Wilson's too, over the number of patients: no resample differs from it.

    Raises:
        ValueError: there is no image.
    """
    if len(happened) == 0:
        raise ValueError("no image to count")
    share, count = float(happened.mean()), len(np.unique(patients))
    if count == len(happened) or share in (0.0, 1.0):
        return wilson(share, count)
    draws = [
        (weights @ happened) / weights.sum(axis=1)
        for weights in resamplings(patients, seed, resamples)
    ]
    if not draws:
        return Interval(share, math.nan, math.nan)
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    return _holding(share, float(low), float(high))


def wilson(share: float, count: int) -> Interval:
    """The share of `count` independent cases with its 95 % score interval.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", J. Am.
    Stat. Assoc. 22:209.
    """
    square = NORMAL_QUANTILE**2 / count
    middle = (share + square / 2) / (1 + square)
    width = NORMAL_QUANTILE * math.sqrt((share * (1 - share) + square / 4) / count) / (1 + square)
    return _holding(share, middle - width, middle + width)


def _holding(share: float, low: float, high: float) -> Interval:
    """The interval within 0 to 1, drawn out where rounding or resampling left the share out."""
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)))
