"""Confidence bounds of metrics and of their differences, from jackknife deviations.

The interval of a metric is a t interval on the logit scale, which stays within the range and is
skewed as the errors near 0 and 1 are (Pepe 2003, "The statistical evaluation of medical tests",
section 5.2; for the area under the ROC curve Qin & Hotilovac 2008, Statistical Methods in Medical
Research 17:207). The standard error is that of the jackknife over whole groups. A value of exactly
0 or 1, where the jackknife variance is 0, has the score interval of a proportion (Wilson 1927) over
the number of groups behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

from medtl.evaluation.metrics import (
    GroupCounts,
    Metric,
    class_metrics,
    overall_metrics,
)
from medtl.evaluation.scored_cases import has_findings, labelled_cases

LEVEL = 0.975  # one-sided level of each bound of a 95 % interval
FARTHEST = 1e3  # standard errors; the confidence is 1 beyond
ROUNDING = 1e-12  # tolerance for values at the end of the range


@dataclass(frozen=True)
class Interval:
    """Value with the bounds of its 95 % interval; NaN bounds are undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low) and not math.isnan(self.value):
            return f"{self.value:.3f} (no interval: too few cases)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Difference:
    """Metric of b less that of a, with its 95 % interval and the confidence that b's is higher.

    `confidence` is one minus the one-sided p-value of the interval: the largest level at which the
    one-sided lower bound is above 0. The interval lies above 0 if it is over 0.975, and below 0 if
    it is under 0.025.
    """

    value: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Estimate:
    """Metric with its sampling error.

    Attributes:
        value: the metric.
        moves: [J], change without each block of cases, scaled so that the squares sum to the
            variance (`medtl.evaluation.jackknife.Blocks.moves`). NaN if the metric is undefined
            without the block; the variance is then unknown.
        freedom: function from `moves` to the degrees of freedom of the variance.
        behind: effective number of independent cases behind a flawless value.
        least, most: range of the metric.
        unseen: for an error of probabilities (ECE, Brier) without misclassification, 1 over the
            number of groups, else 0. A misclassification costs up to 1, with a frequency up to the
            score bound of 0 observed; the bounds are widened by that much.
    """

    value: float
    moves: np.ndarray
    freedom: Callable[[np.ndarray], float]
    behind: float
    least: float = 0.0
    most: float = 1.0
    unseen: float = 0.0

    def shifts(self, errors: float) -> tuple[float, float]:
        """Returns how far the bounds lie below and above the value at `errors` standard errors."""
        span = self.most - self.least
        share = min(1.0, max(0.0, (self.value - self.least) / span))
        known = not np.isnan(self.moves).any()
        if not known or min(share, 1 - share) < ROUNDING:
            low, high = score_bounds(round(share, 9), self.behind if known else 1.0, errors)
        else:
            error = float(np.sqrt(np.square(self.moves / span).sum())) / (share * (1 - share))
            low, high = expit(logit(share) - errors * error), expit(logit(share) + errors * error)
        up = max(0.0, float(high) - share) * span
        return max(0.0, share - float(low)) * span, max(up, self._unseen(errors))

    def _unseen(self, errors: float) -> float:
        """Returns the upper bound on the frequency of an unobserved misclassification."""
        return score_bounds(0.0, 1 / self.unseen, errors)[1] if self.unseen else 0.0

    @property
    def interval(self) -> Interval:
        """Computes the 95 % interval; its bounds are NaN with fewer than two blocks."""
        if math.isnan(self.value) or len(self.moves) < 2:
            return Interval(self.value, math.nan, math.nan)
        down, up = self.shifts(quantile(LEVEL, self.freedom(self.moves)))
        return Interval(self.value, self.value - down, self.value + up)


@dataclass(frozen=True, kw_only=True)
class GapEstimate(Estimate):
    """Calibration error: a sum of absolute gaps, which is biased upwards by noise.

    Resampling adds a second bias, so that a percentile interval lies above the true value. This
    interval inverts a test instead: all gaps are scaled by a factor, the resampled deviations are
    added, and `below` is the share of resamples whose error is at most the observed one, decreasing
    in `factors` (a one-parameter family: DiCiccio & Romano 1990, International Statistical Review
    58:59). It is extended to include the value, which is biased upwards.
    """

    factors: np.ndarray
    below: np.ndarray

    def shifts(self, errors: float) -> tuple[float, float]:
        """Returns the same as in `Estimate`."""
        if self.value < ROUNDING:
            return super().shifts(errors)
        tail = float(stdtr(self.freedom(self.moves), -errors))
        # np.interp needs increasing abscissas
        low, high = np.interp([1 - tail, tail], self.below[::-1], self.factors[::-1])
        down, up = self.value * max(0.0, 1 - low), self.value * max(0.0, high - 1)
        flaw = self._unseen(errors)
        return max(down, min(self.value, flaw)), max(up, flaw)


def gap_estimate(
    estimate: Estimate, gaps: np.ndarray, deviations: Sequence[np.ndarray], groups: int
) -> Estimate:
    """Adds the inverted interval to the calibration error `estimate`.

    `gaps` [B], whose absolute values sum to the error; `deviations` are resampled gaps [R, B].
    """
    if len(deviations) == 0 or estimate.value < ROUNDING:
        return estimate
    # corrects the resampled spread, which is too small with few groups
    wider = quantile(LEVEL, groups - 1) / quantile(LEVEL, math.inf) * groups**0.5
    noise = np.concatenate([each - gaps for each in deviations]) * wider / (groups - 1) ** 0.5
    factors = np.linspace(0.0, 1.0, 41)
    factors = np.concatenate([factors, np.geomspace(1.03, FARTHEST, 80)])
    below = np.array([_share_below(factor * gaps, noise, estimate.value) for factor in factors])
    # ties are not allowed as abscissas
    falling = np.minimum.accumulate(below) - np.arange(len(below)) * ROUNDING
    return GapEstimate(**vars(estimate), factors=factors, below=falling)


def _share_below(gaps: np.ndarray, noise: np.ndarray, value: float) -> float:
    return float((np.abs(gaps + noise).sum(axis=1) <= value).mean())


def difference(a: Estimate, b: Estimate) -> Difference:
    """Returns b less a, measured on cases that may be common to both.

    The bounds are recovered from the bounds of both and the correlation of their `moves` (Zou &
    Donner 2008, Statistics in Medicine 27:1693; for two proportions this is Newcombe's method 10,
    1998, Statistics in Medicine 17:2635).
    """
    value = b.value - a.value
    if math.isnan(value) or min(len(a.moves), len(b.moves)) < 2:
        return Difference(value, math.nan, math.nan, math.nan)
    correlation = _correlation(a.moves, b.moves)

    def shifts(errors: float) -> tuple[float, float]:
        (a_down, a_up), (b_down, b_up) = a.shifts(errors), b.shifts(errors)
        return (
            _together(b_down, a_up, correlation),
            _together(b_up, a_down, correlation),
        )

    freedom = b.freedom(np.nan_to_num(b.moves) - np.nan_to_num(a.moves))
    errors = quantile(LEVEL, freedom)
    down, up = shifts(errors)
    low, high = value - down, value + up
    if value == 0:
        return Difference(value, low, high, 0.5)
    side = 0 if value > 0 else 1  # the bound towards 0
    # Keeps the confidence consistent with the side of 0 of the 95 % interval.
    apart = low > 0 or high < 0
    near, far = (errors, FARTHEST) if apart else (0.0, errors)
    while far - near > 1e-9 * far:
        middle = (near + far) / 2
        near, far = (middle, far) if shifts(middle)[side] < abs(value) else (near, middle)
    confidence = float(stdtr(freedom, near if apart else far))
    return Difference(value, low, high, confidence if value > 0 else 1 - confidence)


def score_bounds(share: float, count: float, errors: float) -> tuple[float, float]:
    """Returns the score interval (Wilson 1927) of a share of `count` cases, at `errors` errors."""
    square = errors**2 / count
    middle = (share + square / 2) / (1 + square)
    width = errors * math.sqrt((share * (1 - share) + square / 4) / count) / (1 + square)
    return max(0.0, min(middle - width, share)), min(1.0, max(middle + width, share))


def quantile(level: float, freedom: float) -> float:
    """Returns the quantile of Student's t; of the normal with infinite `freedom`."""
    return float(stdtrit(freedom, level))


def _together(one: float, other: float, correlation: float) -> float:
    square = one**2 + other**2 - 2 * correlation * one * other
    return math.sqrt(max(0.0, square))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = np.nan_to_num(first), np.nan_to_num(second)
    spread = math.sqrt(float(np.square(first).sum() * np.square(second).sum()))
    if spread == 0:
        return 0.0
    return min(1.0, max(-1.0, float((first * second).sum()) / spread))


# Groups are patients, or identical cases. With many groups, blocks of several are left out (the
# delete-a-group jackknife: Kott 2001, Journal of Official Statistics 17:521), which bounds the
# number of passes.


MOST_BLOCKS = 400
# Weights per chunk: under 1 MB, so that a chunk and its sums fit the CPU cache.
CHUNK_VALUES = 100_000


@dataclass(frozen=True)
class Blocks:
    """Blocks of N cases, `block` int [N] below `count`; groups are never divided."""

    block: np.ndarray
    count: int

    @classmethod
    def of(cls, groups: np.ndarray, seed: int) -> Blocks:
        """Assigns a block per group, `groups` any codes [N]; more than 400 share random blocks."""
        _, codes = np.unique(groups, return_inverse=True)
        count = int(codes.max()) + 1
        if count <= MOST_BLOCKS:
            return cls(codes, count)
        dealt = np.random.default_rng(seed).permutation(count) % MOST_BLOCKS
        return cls(dealt[codes], MOST_BLOCKS)

    def among(self, inside: np.ndarray) -> Blocks:
        """Returns the blocks restricted to the cases `inside` bool [N]; some may be empty."""
        return Blocks(self.block[inside], self.count)

    def without(self) -> Iterator[np.ndarray]:
        """Yields weights [j, N], `count` rows in total: 0 for the cases of a block, else 1."""
        rows = max(1, CHUNK_VALUES // len(self.block))
        for start in range(0, self.count, rows):
            left_out = np.arange(start, min(start + rows, self.count))
            yield (left_out[:, None] != self.block).astype(np.float64)

    def moves(self, values: np.ndarray) -> np.ndarray:
        """Scales the jackknife deviations [J] of a metric's `values` [J] without each block.

        The squares sum to the jackknife variance (Efron & Stein 1981, Annals of Statistics 9:586).
        NaN values give NaN.
        """
        known = values[~np.isnan(values)]
        middle = known.mean() if len(known) else math.nan
        return math.sqrt((self.count - 1) / self.count) * (middle - values)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns the rarest class, or finding, among the cases of each block: int [J].

        `labels` as in `medtl.evaluation.scored_cases`. K for a block without a finding, -1 for an
        empty block.
        """
        labels = np.asarray(labels)
        classes = labels.shape[1] if has_findings(labels) else int(labels.max()) + 1
        there = np.zeros((self.count, classes), bool)
        if has_findings(labels):
            np.logical_or.at(there, self.block, labels == 1)
        else:
            there[self.block, labels] = True
        by_rarity = np.argsort(there.sum(axis=0), kind="stable")
        ordered = there[:, by_rarity]
        rarest = np.where(ordered.any(axis=1), by_rarity[ordered.argmax(axis=1)], classes)
        return np.where(np.bincount(self.block, minlength=self.count) > 0, rarest, -1)


@dataclass(frozen=True)
class ByStratum:
    """Degrees of freedom of a variance with unequal contributions of strata.

    Satterthwaite 1946, Biometrics Bulletin 2:110: few positive cases among many negative ones give
    few. `strata` int [J].
    """

    strata: np.ndarray

    def __call__(self, moves: np.ndarray) -> float:
        """Returns the degrees of freedom for `moves` [J]; infinite for zero variance."""
        there = self.strata >= 0
        squares = np.square(np.nan_to_num(moves[there]))
        _, codes = np.unique(self.strata[there], return_inverse=True)
        sums, counts = np.bincount(codes, weights=squares), np.bincount(codes)
        whole = np.square(sums / np.maximum(counts - 1, 1) ** 0.5).sum()
        return max(1.0, float(sums.sum() ** 2 / whole)) if whole > 0 else math.inf


def by_tails(moves: np.ndarray) -> float:
    """Returns the degrees of freedom of the variance of heavy-tailed values, from the kurtosis.

    Matches the variance of the variance to that of a chi-squared (Satterthwaite 1946).
    """
    moves = np.nan_to_num(moves)
    moves = moves[moves != 0]
    squares = np.square(moves)
    if len(moves) < 2:
        return math.inf
    kurtosis = len(moves) * np.square(squares).sum() / squares.sum() ** 2
    most = len(moves) - 1.0
    return max(1.0, min(most, 2 * len(moves) / (kurtosis - 1))) if kurtosis > 1 else most


@dataclass(frozen=True)
class Evidence:
    """Effective numbers of groups behind each metric, by its name; by class float64 [K]."""

    groups: float  # all of them
    overall: dict[str, float]
    per_class: dict[str, np.ndarray]
    macro: dict[str, float]


def evidence(labels: np.ndarray, groups: np.ndarray, classes: int) -> Evidence:
    """Computes the evidence for each metric of the table (`Metric.groups`).

    `labels` int [N], of findings int8 [N, K]; `groups` any codes [N]. A micro average has all
    groups behind it.
    """
    counts = _group_counts(labels, np.asarray(groups), classes)
    positive = classes == 2 and not counts.multi_label

    def by_class(metric: Metric) -> np.ndarray:
        return np.maximum(np.broadcast_to(metric.groups(counts), classes), 1.0)

    def of_score(metric: Metric) -> float:
        found = metric.groups(counts)
        if np.ndim(found) == 0:
            return float(found)
        return float(by_class(metric)[1]) if positive else counts.of_mean(np.asarray(found))

    in_tables = {each.name: by_class(each) for each in class_metrics()}
    return Evidence(
        counts.total,
        {each.name: of_score(each) for each in overall_metrics(ordinal=True)},
        in_tables,
        {name: counts.of_mean(each) for name, each in in_tables.items()},
    )


def _group_counts(labels: np.ndarray, groups: np.ndarray, classes: int) -> GroupCounts:
    counts = []
    for index in range(classes):
        cases, positive = labelled_cases(labels, index)
        own = groups[cases]
        counts.append([len(np.unique(own[positive])), len(np.unique(own[~positive]))])
    actual, absent = np.array(counts, np.float64).T
    return GroupCounts(actual, absent, float(len(np.unique(groups))), has_findings(labels))
