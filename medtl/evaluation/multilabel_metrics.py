"""Metrics of multi-label scores: each finding a question of its own.

The cousins of `ScoredCases` and `PooledCases` for labels int8 [N, K]: 1 present, 0 absent, -1
unknown. What is unknown has no weight in any sum, so that nothing depends on it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.metrics import (
    CALIBRATION_BINS,
    OVERALL,
    PER_CLASS,
    Metrics,
    Ranking,
    calibration_bin,
    checked,
    labelled_cases,
    mean_over_classes,
    ratio,
)


@dataclass(frozen=True)
class ScoredFindings:
    """N cases with what is known of K findings and a model's scores, prepared for any weighting.

    `actual`, `absent` and `decided` [N, K] are 1 where a finding is known to be there, known not to
    be there, and decided to be there. `calibration` [N, K x 15] holds, in the bin of a finding's
    probability, whether it is there less the probability; `squared_error` [N, K].
    """

    actual: np.ndarray
    absent: np.ndarray
    decided: np.ndarray
    rankings: tuple[Ranking, ...]
    calibration: np.ndarray
    squared_error: np.ndarray

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> ScoredFindings:
        """Prepares `labels` int8 [N, K], `probabilities` [N, K] and `decisions` bool [N, K].

        Without `decisions` a finding is decided to be there from a probability of a half on.

        Raises:
            MedtlError: there is no case, or a probability is not a number.
        """
        labels, probabilities = np.asarray(labels), checked(probabilities)
        decisions = probabilities >= 0.5 if decisions is None else np.asarray(decisions)
        actual, absent = (np.asarray(labels == each, np.float64) for each in (1, 0))
        known = actual + absent
        gap = (actual - probabilities) * known
        bins = np.eye(CALIBRATION_BINS)[calibration_bin(probabilities)]
        return cls(
            actual=actual,
            absent=absent,
            decided=decisions.astype(np.float64),
            rankings=tuple(
                _ranking(labels, probabilities, index) for index in range(labels.shape[1])
            ),
            calibration=(bins * gap[:, :, None]).reshape(len(labels), -1),
            squared_error=gap**2,
        )

    def metrics(self, weights: np.ndarray) -> Metrics:
        """All metrics under `weights` float64 [R, N].

        Each is the unweighted mean over the findings of a measure of one finding, there or not:
        `accuracy` the share of what is known that was decided right, `balanced_accuracy` the mean
        of sensitivity and specificity, `mcc` Matthews' correlation (0 where it is undefined), `ece`
        the expected calibration error of the finding's probability over 15 bins of equal width,
        `brier` its squared error (0 to 1); `auroc`, `auprc`, `f1`, `sensitivity` and `specificity`
        as they are called. A finding that a measure is not defined for in a weighting has NaN
        there, and the mean is over the others.
        """
        there, absent, true, false = _counts(self, weights)
        known = there + absent
        areas = [ranking.areas(weights) for ranking in self.rankings]
        sensitivity, specificity = ratio(true, there), ratio(absent - false, absent)
        per_class = {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "precision": np.where(there > 0, ratio(true, true + false), np.nan),
            "f1": np.where(there > 0, ratio(2 * true, there + true + false), np.nan),
            "auroc": np.stack([roc for roc, _ in areas], axis=1),
            "auprc": np.stack([average for _, average in areas], axis=1),
        }
        each = {
            **per_class,
            "accuracy": ratio(true + absent - false, known),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "mcc": _matthews(there, absent, true, false),
        }
        overall = {name: mean_over_classes(columns) for name, columns in each.items()}
        overall |= self.probability_errors(weights)
        return Metrics({name: overall[name] for name in OVERALL}, per_class)

    def probability_errors(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the metrics of probabilities, `ece` and `brier`: [R] each."""
        known = weights @ (self.actual + self.absent)
        return {
            "ece": np.abs(self.calibration_gaps(weights)).sum(axis=1),
            "brier": mean_over_classes(ratio(weights @ self.squared_error, known)),
        }

    @property
    def spotless(self) -> bool:
        """True if all known labels are classified correctly at a probability of one half."""
        return bool((self.squared_error <= 0.25).all())

    def calibration_gaps(self, weights: np.ndarray) -> np.ndarray:
        """Computes the gaps of all findings' bins, [R, K x 15]; `ece` is their absolute sum.

        Weighted by the share of the finding's known labels, averaged over findings with any.
        """
        known = weights @ (self.actual + self.absent)
        share = known * (known > 0).sum(axis=1, keepdims=True)
        gaps = (weights @ self.calibration).reshape(len(weights), -1, CALIBRATION_BINS)
        found = np.nan_to_num(ratio(gaps, np.broadcast_to(share[:, :, None], gaps.shape)))
        return found.reshape(len(weights), -1)


@dataclass(frozen=True)
class PooledFindings:
    """All that is known of N cases, does this case have this finding, answered in one list.

    `ranking` has a place for each question, whose `order` is the case that is asked about.
    """

    ranking: Ranking
    scored: ScoredFindings

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> PooledFindings:
        """Prepares the arguments of `ScoredFindings.of`."""
        scored = ScoredFindings.of(labels, probabilities, decisions)
        cases, columns = np.nonzero(np.asarray(labels) >= 0)
        there = np.asarray(labels)[cases, columns] == 1
        ranking = Ranking.of(there, np.asarray(probabilities, np.float64)[cases, columns])
        return cls(dataclasses.replace(ranking, order=cases[ranking.order]), scored)

    def micro(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of `PER_CLASS` over all questions, each [R], under `weights` [R, N]."""
        there, absent, true, false = (each.sum(axis=1) for each in _counts(self.scored, weights))
        roc, average = self.ranking.areas(weights)
        found = {
            "sensitivity": ratio(true, there),
            "specificity": ratio(absent - false, absent),
            "precision": ratio(true, true + false),
            "f1": ratio(2 * true, there + true + false),
            "auroc": roc,
            "auprc": average,
        }
        return {name: found[name] for name in PER_CLASS}


def _ranking(labels: np.ndarray, probabilities: np.ndarray, index: int) -> Ranking:
    """The cases of which it is known whether they have a finding, by their places among all."""
    cases, there = labelled_cases(labels, index)
    ranking = Ranking.of(there, probabilities[cases, index])
    return dataclasses.replace(ranking, order=cases[ranking.order])


def _counts(scored: ScoredFindings, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Cases with each finding, without it, called rightly and called wrongly: each [R, K]."""
    return (
        weights @ scored.actual,
        weights @ scored.absent,
        weights @ (scored.actual * scored.decided),
        weights @ (scored.absent * scored.decided),
    )


def _matthews(
    there: np.ndarray, absent: np.ndarray, true: np.ndarray, false: np.ndarray
) -> np.ndarray:
    known, called = there + absent, true + false
    spread = there * absent * called * (known - called)
    covariance = true * (absent - false) - false * (there - true)
    found = np.where(spread > 0, ratio(covariance, np.sqrt(spread)), 0.0)
    return np.where(known > 0, found, np.nan)
