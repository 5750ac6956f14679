"""A one-sided test of two models' AUROC on the same cases, for levels far out in the tail.

DeLong's variance of the difference, with the sums over clusters of Obuchowski 1997, Biometrics
53:567, and Student's t with Welch's degrees of freedom. A percentile of a few thousand resamples
says nothing of a level such as 99.99 %; this has a value for every level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from medtl.evaluation.delong import LEAST_CASES
from medtl.evaluation.intervals import Difference
from medtl.evaluation.truth import asked, asked_about

# Standard deviation of the mean of one placement, where a side has one group and so no variance of
# its own: half of what a value between -1 and 1 can have at most.
LONE = 0.5
NO_VARIANCE = 1e-30  # beside any other nothing, and not nothing where there is no other


@dataclass(frozen=True)
class PairedTest:
    """The AUROC of b less that of a, its standard error and the degrees of freedom of the error."""

    value: float
    error: float
    degrees: float

    @property
    def confidence(self) -> float:
        """One less the one-sided p of `b is no better`, 0.5 for models that rank alike."""
        if self.error == 0:
            return 0.5
        return float(stats.t.cdf(self.value / self.error, self.degrees))

    def difference(self, level: float) -> Difference:
        """The difference with its bounds, each of which holds with the confidence `level`.

        The lower bound is above 0 where `confidence` is above `level`, and nowhere else. The two
        bounds together are an interval of the level `2 * level - 1`.
        """
        half = stats.t.ppf(level, self.degrees) * self.error if self.error else 0.0
        low, high = max(-1.0, self.value - half), min(1.0, self.value + half)
        return Difference(self.value, float(low), float(high), self.confidence)


def paired_auroc_test(
    labels: np.ndarray, probabilities_a: np.ndarray, probabilities_b: np.ndarray, groups: np.ndarray
) -> PairedTest:
    """The test of b against a; AUROC as in `medtl.evaluation.metrics` (mean over the classes).

    The placements of a case (the share of the cases of the other side that it is ranked right
    against) make its influence on the difference, over all classes; the influences of a group are
    added, and the variance is that of these sums. Two small-sample terms are ours: the square of
    the difference itself, once for each side and class, counts as a further case that says nothing
    (so that few cases that all agree prove no more than their number can), and a side with one
    group has the fixed error `LONE`.

    Args:
        labels: int [N], places in the K classes; of findings int8 [N, K], as `truth` has them.
        probabilities_a: [N, K].
        probabilities_b: [N, K].
        groups: [N], any codes; cases of one group depend on each other.

    Returns:
        A test whose value is NaN where no class has both a case and a case of another.
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
            # as many groups as there are, less one: the mean that they vary about is their own
            influence += sums * np.sqrt(size / max(size - 1, 1))
            lone = LONE / len(each) if size < LEAST_CASES else 0.0
            sides.append((np.square(sums).sum(), size, own / len(each) / size, lone))
    variance, sizes, doubt, lone = (np.array(column) for column in zip(*sides, strict=True))
    error = np.sqrt(np.square(influence).sum() + np.square(doubt).sum() + np.square(lone).sum())
    return PairedTest(float(value), float(error), _degrees(variance, sizes))


def _placements(positive: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The share of the cases of the other side that each case is ranked right against: [N]."""
    own, others = scores[positive], scores[~positive]
    placed = np.empty(len(scores))
    placed[positive] = _share_below(own, np.sort(others))
    placed[~positive] = 1 - _share_below(others, np.sort(own))
    return placed


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of `others`, which are sorted, below each value; ties count half."""
    left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
    return (left + right) / (2 * len(others))


def _degrees(variance: np.ndarray, sizes: np.ndarray) -> float:
    """Welch's degrees of freedom of a sum of variances, each from so many groups; at least 1."""
    variance = variance + NO_VARIANCE
    degrees = np.maximum(sizes - 1, 1)
    return float(variance.sum() ** 2 / np.sum(variance**2 / degrees))
