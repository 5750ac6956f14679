"""Metrics of a classifier's scores, computed for many weightings of the cases at once.

A weighting says how often each case counts: all ones give the metric itself, the multiplicities
of a bootstrap resample give the metric of that resample. Nothing is sorted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtl.errors import MedtlError
from medtl.evaluation.ranking import Ranking

OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "auroc",
    "auprc",
    "f1",
    "sensitivity",
    "specificity",
    "mcc",
    "ece",
    "brier",
)
PER_CLASS = ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc")
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """Metrics under R weightings: `overall` name to [R], `per_class` name to [R, K]."""

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]


@dataclass(frozen=True)
class ScoredCases:
    """N labelled cases with a model's scores, prepared so that any weighting is cheap.

    `actual`, `decided` [N, K] are one-hot; `calibration` [N, 15] holds, in the bin of the case's
    highest probability, whether that class was right less the probability; `squared_error` [N].
    """

    actual: np.ndarray
    decided: np.ndarray
    rankings: tuple[Ranking, ...]
    calibration: np.ndarray
    squared_error: np.ndarray

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> ScoredCases:
        """Prepares `labels` int [N], `probabilities` [N, K] and `decisions` int [N].

        Without `decisions` the most probable class is the decision.

        Raises:
            MedtlError: there is no case, or a probability is not a number.
        """
        labels = np.asarray(labels)
        probabilities = checked(probabilities)
        classes = probabilities.shape[1]
        chosen = probabilities.argmax(axis=1)
        decisions = chosen if decisions is None else np.asarray(decisions)
        actual = _one_hot(labels, classes)
        confidence = probabilities.max(axis=1)
        right = (chosen == labels).astype(np.float64)
        squared_error = np.square(probabilities - actual).sum(axis=1)
        return cls(
            actual=actual,
            decided=_one_hot(decisions, classes),
            rankings=tuple(
                Ranking.of(labels == index, probabilities[:, index]) for index in range(classes)
            ),
            calibration=_one_hot(calibration_bin(confidence), CALIBRATION_BINS)
            * (right - confidence)[:, None],
            squared_error=squared_error / 2 if classes == 2 else squared_error,
        )

    def metrics(self, weights: np.ndarray) -> Metrics:
        """All metrics under `weights` float64 [R, N].

        With two classes, the second is the positive one and `auroc`, `auprc`, `f1`, `sensitivity`
        and `specificity` are its own. With more they are unweighted means over the classes, each
        against the rest. `balanced_accuracy` is the mean sensitivity, `mcc` Matthews' correlation
        for any number of classes (Gorodkin 2004, 0 where it is undefined), `ece` the expected
        calibration error of the most probable class over 15 bins of equal width (Guo et al. 2017,
        arXiv 1706.04599), `brier` the squared error of all probabilities (0 to 2; two classes: of
        the positive one, 0 to 1).

        A class that has no case in a weighting has NaN there, and the means are over the others.
        """
        total = weights.sum(axis=1)
        per_class = self._per_class(weights, total)
        overall = {
            "accuracy": self._agreed(weights).sum(axis=1) / total,
            "balanced_accuracy": mean_over_classes(per_class["sensitivity"]),
            "mcc": self._matthews(weights, total),
            **self.probability_errors(weights),
        }
        for name in ("auroc", "auprc", "f1", "sensitivity", "specificity"):
            columns = per_class[name]
            overall[name] = columns[:, 1] if columns.shape[1] == 2 else mean_over_classes(columns)
        return Metrics({name: overall[name] for name in OVERALL}, per_class)

    def probability_errors(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Computes the metrics of probabilities, `ece` and `brier`: [R] each."""
        return {
            "ece": np.abs(self.calibration_gaps(weights)).sum(axis=1),
            "brier": weights @ self.squared_error / weights.sum(axis=1),
        }

    @property
    def spotless(self) -> bool:
        """True if the most probable class is correct for every case."""
        return bool((self.calibration.sum(axis=1) >= 0).all())

    def calibration_gaps(self, weights: np.ndarray) -> np.ndarray:
        """Computes the gap of each bin, [R, 15], weighted by cases; `ece` is the absolute sum."""
        return weights @ self.calibration / weights.sum(axis=1, keepdims=True)

    def _agreed(self, weights: np.ndarray) -> np.ndarray:
        return weights @ (self.actual * self.decided)

    def _per_class(self, weights: np.ndarray, total: np.ndarray) -> dict[str, np.ndarray]:
        actual, decided = weights @ self.actual, weights @ self.decided
        agreed = self._agreed(weights)
        areas = [ranking.areas(weights) for ranking in self.rankings]
        negatives = total[:, None] - actual
        present = actual > 0
        return {
            "sensitivity": ratio(agreed, actual),
            "specificity": ratio(negatives - (decided - agreed), negatives),
            "precision": np.where(present, ratio(agreed, decided), np.nan),
            "f1": np.where(present, ratio(2 * agreed, actual + decided), np.nan),
            "auroc": np.stack([roc for roc, _ in areas], axis=1),
            "auprc": np.stack([average for _, average in areas], axis=1),
        }

    def _matthews(self, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
        actual, decided = weights @ self.actual, weights @ self.decided
        agreed = self._agreed(weights).sum(axis=1)
        covariance = agreed * total - (actual * decided).sum(axis=1)
        spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (decided**2).sum(axis=1))
        return np.where(spread > 0, ratio(covariance, np.sqrt(spread)), 0.0)


def checked(probabilities: np.ndarray) -> np.ndarray:
    """Returns the probabilities as float64 [N, K], once they are known to be numbers."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if len(probabilities) == 0:
        raise MedtlError("there is no case to measure; choose a split that has images")
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        raise MedtlError(
            f"the scores of {len(broken)} of {len(probabilities)} cases are not numbers "
            f"(first: case {broken[0]}); the training diverged, try a lower lr"
        )
    return probabilities


def calibration_bin(confidence: np.ndarray) -> np.ndarray:
    """The bin (0 to 14) of each probability; a bin holds its upper edge, as in Guo et al. 2017."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)


def _one_hot(indices: np.ndarray, size: int) -> np.ndarray:
    """Rows of the identity, float64 [N, size]."""
    return np.eye(size)[indices]


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def mean_over_classes(columns: np.ndarray) -> np.ndarray:
    """Returns the mean of each row [R, K] over what is a number; NaN for a row without any."""
    present = ~np.isnan(columns)
    return ratio(np.where(present, columns, 0.0).sum(axis=1), present.sum(axis=1).astype(float))
