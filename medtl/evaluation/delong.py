"""DeLong's variance of AUROC for groups, and a paired test of two models.

DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837, for independent cases; Obuchowski 1997,
Biometrics 53:567, for groups of cases (a patient's images).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from medtl.errors import MedtlError
from medtl.evaluation.jackknife import LEVEL, Difference, Interval, evidence, quantile, score_bounds
from medtl.evaluation.scored_cases import asked_about, labelled_cases

Z95 = quantile(LEVEL, math.inf)
LEAST_CASES = 2  # positive, and negative: a variance needs two


def delong_error(positive: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
    """Computes Obuchowski's standard error of the area; DeLong's for groups of one case.

    `positive` bool [N], `scores` [N], higher meaning more positive, `groups` any codes [N].

    Raises:
        MedtlError: fewer than two groups with a positive, or with a negative.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    above, below = _placements(positive, scores)
    parts = []
    for among, values in ((positive, above), (~positive, below)):
        own = codes[among]
        there = len(np.unique(own))
        if there < LEAST_CASES:
            raise MedtlError(
                "an area of which one group has all positive, or all negative, cases has no "
                "variance; measure on more patients"
            )
        sums = np.bincount(own, weights=values - values.mean(), minlength=count)
        parts.append((sums / len(values), there / (there - 1)))
    (first, of_first), (second, of_second) = parts
    variance = of_first * np.square(first).sum() + of_second * np.square(second).sum()
    both = 2 * (first * second).sum() * count / (count - 1)
    return math.sqrt(max(0.0, float(variance + both)))


def delong_interval(
    positive: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
) -> Interval:
    """Computes the area with its 95 % interval on the logit scale; score interval if flawless.

    Arguments and errors as in `delong_error`; without `groups` each case is a group.
    """
    groups = np.arange(len(scores)) if groups is None else groups
    error = delong_error(positive, scores, groups)
    area = float(_placements(positive, scores)[0].mean())
    if area in (0.0, 1.0):
        behind = evidence(positive.astype(int), groups, 2).overall["auroc"]
        return Interval(area, *score_bounds(area, behind, Z95))
    half = Z95 * error / (area * (1 - area))
    return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def with_delong(
    per_class: pd.DataFrame, labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray
) -> pd.DataFrame:
    """Adds `delong_low` and `delong_high` to the `auroc` rows of the table of `Measures`.

    `labels` int [N] (findings int8 [N, K]), `probabilities` [N, K], `groups` [N]. Both intervals
    should be similar. NaN if the cases of a class, or all others, are of one group.
    """
    bounds = []
    for index in range(len(per_class)):
        cases, positive = labelled_cases(labels, index)
        own = np.asarray(groups)[cases]
        enough = min(len(np.unique(own[positive])), len(np.unique(own[~positive]))) >= LEAST_CASES
        found = delong_interval(positive, probabilities[cases, index], own) if enough else None
        bounds.append((found.low, found.high) if found else (np.nan, np.nan))
    table = per_class.copy()
    place = table.columns.get_loc("auroc_high") + 1
    table.insert(place, "delong_low", [low for low, _ in bounds])
    table.insert(place + 1, "delong_high", [high for _, high in bounds])
    return table


def delong_difference(
    positive: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray
) -> Difference:
    """Computes the area of b less that of a on the same cases, with its 95 % interval.

    `confidence` is one minus the one-sided p-value of the normal test that b's area is higher.
    Each case is a group. Arguments and errors as in `delong_error`.
    """
    of_a, of_b = _placements(positive, scores_a), _placements(positive, scores_b)
    above, below = of_b[0] - of_a[0], of_b[1] - of_a[1]
    value = above.mean()
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    confidence = NormalDist().cdf(value / error) if error > 0 else (np.sign(value) + 1) / 2
    low, high = value - Z95 * error, value + Z95 * error
    return Difference(float(value), float(low), float(high), float(confidence))


def _placements(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the placements of positives and of negatives.

    The mean of either is the area under the ROC curve.
    """
    count, others = int(positive.sum()), int((~positive).sum())
    if min(count, others) < LEAST_CASES:
        raise MedtlError(
            f"an area with {count} positive and {others} negative cases has no variance; measure "
            "on data with at least two of each"
        )
    placed = _placement_values(positive, scores)
    return placed[positive], placed[~positive]


# DeLong's variance of the difference, clustered as in Obuchowski 1997, Biometrics 53:567, and
# Student's t with Welch's degrees of freedom. Unlike percentiles of a few thousand resamples, it is
# defined at levels such as 99.99 %.


# Standard deviation of the mean placement of a side with one group, which has no sample variance:
# half of the maximum for values between -1 and 1.
LONE = 0.5
NO_VARIANCE = 1e-30  # positive, but negligible beside any other variance


@dataclass(frozen=True)
class PairedTest:
    """AUROC of b less that of a, with its standard error and degrees of freedom."""

    value: float
    error: float
    degrees: float

    @property
    def confidence(self) -> float:
        """Confidence that b is better: one minus the one-sided p-value, 0.5 for equal rankings."""
        if self.error == 0:
            return 0.5
        return float(stats.t.cdf(self.value / self.error, self.degrees))

    def difference(self, level: float) -> Difference:
        """Returns the difference with bounds of the one-sided confidence `level` each.

        The lower bound is above 0 if and only if `confidence` is above `level`. Both bounds
        together form an interval of the level `2 * level - 1`.
        """
        half = stats.t.ppf(level, self.degrees) * self.error if self.error else 0.0
        low, high = max(-1.0, self.value - half), min(1.0, self.value + half)
        return Difference(self.value, float(low), float(high), self.confidence)


def paired_auroc_test(
    labels: np.ndarray, probabilities_a: np.ndarray, probabilities_b: np.ndarray, groups: np.ndarray
) -> PairedTest:
    """Tests b against a; AUROC as in `medtl.evaluation.metrics` (mean over the classes).

    The influence of a case on the difference is the sum of its placements (share of correctly
    ranked pairs with the other side) over all classes; influences are summed per group, and the
    variance is that of these sums. Two small-sample terms are ours: the squared difference is added
    once per side and class, like one uninformative case (so that a few unanimous cases are not
    overrated), and a side with one group has the fixed error `LONE`.

    Args:
        labels: int [N], index of the class; for findings int8 [N, K], as in `ScoredCases`.
        probabilities_a: [N, K].
        probabilities_b: [N, K].
        groups: [N], any codes; cases of one group are dependent.

    Returns:
        The test; its value is NaN if no class has both cases and cases of other classes.
    """
    _, groups = np.unique(groups, return_inverse=True)
    count = int(groups.max()) + 1
    each = []
    for index in asked_about(labels, probabilities_a.shape[1]):
        cases, positive = labelled_cases(labels, index)
        if positive.any() and not positive.all():
            a, b = probabilities_a[cases, index], probabilities_b[cases, index]
            gained = _placement_values(positive, b) - _placement_values(positive, a)
            each.append((groups[cases], positive, gained))
    if not each:
        return PairedTest(np.nan, np.nan, np.nan)
    value, influence, sides = 0.0, np.zeros(count), []
    for codes, positive, gained in each:
        own = gained[positive].mean()
        value += own / len(each)
        for side in (positive, ~positive):
            shares = (gained[side] - own) / side.sum() / len(each)
            sums = np.bincount(codes[side], weights=shares, minlength=count)
            size = len(np.unique(codes[side]))
            # number of groups less one, since their mean is estimated
            influence += sums * np.sqrt(size / max(size - 1, 1))
            lone = LONE / len(each) if size < LEAST_CASES else 0.0
            sides.append((np.square(sums).sum(), size, own / len(each) / size, lone))
    variance, sizes, doubt, alone = (np.array(column) for column in zip(*sides, strict=True))
    error = np.sqrt(np.square(influence).sum() + np.square(doubt).sum() + np.square(alone).sum())
    return PairedTest(float(value), float(error), _degrees(variance, sizes))


def _placement_values(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Computes the placements [N]: share of correctly ranked pairs with the other side."""
    own, others = scores[positive], scores[~positive]
    placed = np.empty(len(scores))
    placed[positive] = _share_below(own, np.sort(others))
    placed[~positive] = 1 - _share_below(others, np.sort(own))
    return placed


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the share of sorted `others` below each value; ties count half."""
    left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))


def _degrees(variance: np.ndarray, sizes: np.ndarray) -> float:
    """Computes Welch's degrees of freedom of a sum of variances of `sizes` groups; at least 1."""
    variance = variance + NO_VARIANCE
    degrees = np.maximum(sizes - 1, 1)
    return float(variance.sum() ** 2 / np.sum(variance**2 / degrees))
