"""Metrics of a classifier's scores, computed for many weightings of the cases at once.

A weighting says how often each case counts: all ones give the metric itself, the multiplicities
of a bootstrap resample give the metric of that resample. Nothing is sorted twice.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from medtl.errors import MedtlError


@dataclass(frozen=True)
class Ranking:
    """N cases sorted once by falling score, so that any weighting of them is a cumulative sum.

    `order` [N] are the cases by falling score and `positive` bool [N] says, in that order, which
    are positive. Cases of equal score stand or fall together: the groups of equal score begin at
    `starts` [G] and end before `stops` [G], places in that order.
    """

    order: np.ndarray
    positive: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, scores: np.ndarray) -> Ranking:
        """Sorts N cases: `positive` bool [N], `scores` [N], higher meaning more positive."""
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf) < 0)
        return cls(order, positive[order], starts, np.append(starts[1:], len(order)))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives, each [G], with the threshold at the score of each group."""
        true = np.cumsum(self.positive)[self.stops - 1]
        return true, self.stops - true

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision, each [R].

        `weights` [R, N] says how often each case counts in each of R weightings. Ties count half
        in the first (the Mann-Whitney statistic). The second is the sum of precision over the
        gains in recall, without interpolation between points (Davis & Goadrich 2006). NaN where a
        weighting has no positives or, in the first, no negatives.
        """
        called = np.zeros((len(weights), len(self.order) + 1))
        np.cumsum(np.take(weights, self.order, axis=1), axis=1, out=called[:, 1:])
        total = called[:, -1]

        # Both areas grow only at the groups that hold a positive: nothing else is looked at.
        group = np.repeat(np.arange(len(self.starts)), self.stops - self.starts)
        groups, first = np.unique(group[self.positive], return_index=True)
        if len(groups) == 0:
            return np.full_like(total, np.nan), np.full_like(total, np.nan)
        before, after = called[:, self.starts[groups]], called[:, self.stops[groups]]
        gained = np.take(weights, self.order[self.positive], axis=1)
        if len(groups) < gained.shape[1]:
            gained = np.add.reduceat(gained, first, axis=1)
        true = np.cumsum(gained, axis=1)

        positives = true[:, -1]
        negatives = total - positives
        # A positive beats the negatives ranked below it, and half of those it is tied with.
        below = negatives[:, None] - (after - true)
        tied = (after - before) - gained
        roc = np.einsum("rg,rg->r", gained, below + tied / 2)
        precision = true / np.maximum(after, np.finfo(float).tiny)
        average = np.einsum("rg,rg->r", gained, precision)
        with np.errstate(divide="ignore", invalid="ignore"):
            return roc / (positives * negatives), average / positives


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


@dataclass(frozen=True)
class PooledCases:
    """N cases of K classes as N x K questions, is this case of that class, answered in one list.

    `ranking` has a place for each question, whose `order` is the case that is asked about; `right`
    [N] says whether the class decided is the case's own.
    """

    ranking: Ranking
    right: np.ndarray
    classes: int

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> PooledCases:
        """Prepares the arguments of `ScoredCases.of`."""
        probabilities = checked(probabilities)
        classes = probabilities.shape[1]
        decisions = probabilities.argmax(axis=1) if decisions is None else decisions
        asked = np.asarray(labels)[:, None] == np.arange(classes)
        ranking = Ranking.of(asked.ravel(), probabilities.ravel())
        return cls(
            dataclasses.replace(ranking, order=ranking.order // classes),
            (np.asarray(decisions) == labels).astype(np.float64),
            classes,
        )

    def micro(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of `PER_CLASS` over all questions, each [R], under `weights` [R, N].

        Each case has one label and gets one decision. A wrong one is a false negative of one class
        and a false positive of another, so that micro sensitivity, precision and F1 are all the
        accuracy. The areas are those of scikit-learn's `average="micro"`.
        """
        accuracy = weights @ self.right / weights.sum(axis=1)
        roc, average = self.ranking.areas(weights)
        found = {
            "sensitivity": accuracy,
            "specificity": 1 - (1 - accuracy) / (self.classes - 1),
            "precision": accuracy,
            "f1": accuracy,
            "auroc": roc,
            "auprc": average,
        }
        return {name: found[name] for name in PER_CLASS}


def macro(per_class: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unweighted mean of each metric [R, K] over the classes that have it: [R]."""
    return {name: mean_over_classes(per_class[name]) for name in PER_CLASS}


# Labels int [N] are classes, of which a case has one. Labels int8 [N, K] are findings, of which it
# has any number: 1 present, 0 absent, -1 unknown. All that is asked of one class against the rest,
# or of one finding, is asked of the cases of which the answer is known.


def has_findings(labels: np.ndarray) -> bool:
    """Whether labels are findings."""
    return np.ndim(labels) == 2


def labelled_cases(labels: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The cases that can be asked whether they are of a class, or have a finding, and the answers.

    Returns:
        int64 [A], places among the N cases, ascending, and bool [A].
    """
    labels = np.asarray(labels)
    if not has_findings(labels):
        return np.arange(len(labels)), labels == index
    cases = np.flatnonzero(labels[:, index] >= 0)
    return cases, labels[cases, index] == 1


def asked_about(labels: np.ndarray, count: int) -> range:
    """Which of `count` classes or findings are asked about: of two classes the second alone."""
    return range(1, 2) if count == 2 and not has_findings(labels) else range(count)
