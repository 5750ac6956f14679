"""One-sided test of two models' AUROC on the same cases, valid far in the tail.

DeLong's variance of the difference, clustered as in Obuchowski 1997, Biometrics 53:567, and
Student's t with Welch's degrees of freedom. Unlike percentiles of a few thousand resamples, it is
defined at levels such as 99.99 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from medtl.evaluation.delong import LEAST_CASES
from medtl.evaluation.intervals import Difference
from medtl.evaluation.truth import asked, asked_about

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
        labels: int [N], index of the class; for findings int8 [N, K], as in `truth`.
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
        cases, positive = asked(labels, index)
        if positive.any() and not positive.all():
            a, b = probabilities_a[cases, index], probabilities_b[cases, index]
            gained = _placements(positive, b) - _placements(positive, a)
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
    variance, sizes, doubt, lone = (np.array(column) for column in zip(*sides, strict=True))
    error = np.sqrt(np.square(influence).sum() + np.square(doubt).sum() + np.square(lone).sum())
    return PairedTest(float(value), float(error), _degrees(variance, sizes))


def _placements(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
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
