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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, stdtr, stdtrit

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
