"""DeLong's variance of the area under the ROC curve: a check on the bootstrap, without resampling.

DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837. It takes every case as independent: where
patients have several images its intervals are too narrow, and the bootstrap over patients speaks.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd

from medtl.errors import MedtlError
from medtl.evaluation.intervals import Difference, Interval
from medtl.evaluation.truth import asked

Z95 = NormalDist().inv_cdf(0.975)
LEAST_CASES = 2  # positive, and negative: a variance needs two


def delong_interval(positive: np.ndarray, scores: np.ndarray) -> Interval:
    """The area with its 95 % interval, cut at 0 and 1.

    `positive` bool [N], `scores` [N], higher meaning more positive.

    Raises:
        MedtlError: there are fewer than two positives or two negatives.
    """
    above, below = _placements(positive, scores)
    area = above.mean()
    half = Z95 * np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    return Interval(float(area), max(0.0, float(area - half)), min(1.0, float(area + half)))


def with_delong(
    per_class: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray
) -> pd.DataFrame:
    """The table of `Measures` with `delong_low`, `delong_high` beside the bootstrap's for `auroc`.

    `labels` int [N] (of findings int8 [N, K]), `probabilities` [N, K]. Where each patient has one
    image the two intervals should be much alike. NaN where a class has fewer than two cases, or all
    but one.
    """
    bounds = []
    for index in range(len(per_class)):
        cases, positive = asked(labels, index)
        enough = min(positive.sum(), (~positive).sum()) >= LEAST_CASES
        found = delong_interval(positive, probabilities[cases, index]) if enough else None
        bounds.append((found.low, found.high) if found else (np.nan, np.nan))
    table = per_class.copy()
    place = table.columns.get_loc("auroc_high") + 1
    table.insert(place, "delong_low", [low for low, _ in bounds])
    table.insert(place + 1, "delong_high", [high for _, high in bounds])
    return table


def delong_difference(
    positive: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray
) -> Difference:
    """The area of b less that of a on the same cases, with its 95 % interval.

    `confidence` is the normal probability that b's area is the higher (one less the one-sided p).
    Arguments and errors as in `delong_interval`.
    """
    of_a, of_b = _placements(positive, scores_a), _placements(positive, scores_b)
    above, below = of_b[0] - of_a[0], of_b[1] - of_a[1]
    value = above.mean()
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    confidence = NormalDist().cdf(value / error) if error > 0 else (np.sign(value) + 1) / 2
    low, high = value - Z95 * error, value + Z95 * error
    return Difference(float(value), float(low), float(high), float(confidence))


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each positive the share of negatives below it, for each negative of positives above.

    Ties count half. The mean of either is the area under the ROC curve.
    """
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    if min(len(positives), len(negatives)) < LEAST_CASES:
        raise MedtlError(
            f"an area with {len(positives)} positive and {len(negatives)} negative cases has no "
            "variance; measure on data with at least two of each"
        )

    def share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
        left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
        return (left + right) / (2 * len(others))

    of_positives = share_below(scores[positive], negatives)
    of_negatives = 1 - share_below(scores[~positive], positives)
    return of_positives, of_negatives
