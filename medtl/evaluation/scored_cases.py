"""Labelled cases with a model's scores, prepared so that any weighting of the cases is cheap.

A weighting says how often each case counts: all ones give a metric itself, the multiplicities of a
bootstrap resample give the metric of that resample. Scores are sorted once.

Labels int [N] are classes, one a case. Labels int8 [N, K] are findings, any number a case: 1
present, 0 absent, -1 unknown. Unknown findings have no weight in any sum.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medtl.errors import MedtlError

CALIBRATION_BINS = 15


def has_findings(labels: np.ndarray) -> bool:
    """Returns whether labels are findings, of which a case has any number."""
    return np.ndim(labels) == 2


def labelled_cases(labels: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Selects the cases with a known label for one class or finding, and says which are positive.

    Returns:
        int64 [A], places among the N cases, ascending, and bool [A].
    """
    labels = np.asarray(labels)
    if not has_findings(labels):
        return np.arange(len(labels)), labels == index
    cases = np.flatnonzero(labels[:, index] >= 0)
    return cases, labels[cases, index] == 1


def asked_about(labels: np.ndarray, count: int) -> range:
    """Returns the classes or findings (of `count`) that have curves: of two classes the second."""
    return range(1, 2) if count == 2 and not has_findings(labels) else range(count)


def checked(probabilities: np.ndarray) -> np.ndarray:
    """Returns the probabilities as float64 [N, K].

    Raises:
        MedtlError: there is no case, or a probability is not a number.
    """
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
    """Returns the bin (0 to 14) of each probability; it includes its upper edge (Guo et al. 2017).

    >>> calibration_bin(np.array([0.0, 1 / 15, 0.5, 1.0])).tolist()
    [0, 0, 7, 14]
    """
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides `part` by `whole`; NaN where `whole` is zero."""
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)


def mean_over_classes(columns: np.ndarray) -> np.ndarray:
    """Averages each row [R, K] without its NaN; NaN for a row that has nothing else."""
    present = ~np.isnan(columns)
    return ratio(np.where(present, columns, 0.0).sum(axis=1), present.sum(axis=1).astype(float))


@dataclass(frozen=True)
class DecidedCases:
    """N labelled cases with a model's probabilities and decisions.

    Attributes:
        labels: int [N], index into `classes`; of findings int8 [N, K].
        groups: [N], any codes; cases of one group (a patient) are dependent.
        classes: K names.
        probabilities: [N, K], calibrated.
        decisions: int [N], at the operating point; of findings bool [N, K].
    """

    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    probabilities: np.ndarray
    decisions: np.ndarray

    def among(self, chosen: np.ndarray) -> DecidedCases:
        """Returns the cases `chosen`, bool [N] or places."""
        return DecidedCases(
            self.labels[chosen],
            self.groups[chosen],
            self.classes,
            self.probabilities[chosen],
            self.decisions[chosen],
        )

    def scored(self) -> ScoredCases:
        """Prepares the cases for metrics."""
        return ScoredCases.of(self.labels, self.probabilities, self.decisions)


@dataclass(frozen=True)
class Ranking:
    """N cases sorted once by falling score, so that any weighting of them is a cumulative sum.

    `order` [N] are the cases by falling score; `positive` bool [N] flags the positive ones in that
    order. Cases of equal score form a group, which begins at `starts` [G] and ends before `stops`
    [G], places in that order.
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
        """Counts true and false positives, each [G], with the threshold at the score of a group."""
        true = np.cumsum(self.positive)[self.stops - 1]
        return true, self.stops - true

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the area under the ROC curve and the average precision, each [R].

        `weights` [R, N] says how often each case counts in each of R weightings. Ties count half
        in the first (the Mann-Whitney statistic). The second is the sum of precision over the
        gains in recall, without interpolation between points (Davis & Goadrich 2006). NaN where a
        weighting has no positives or, in the first, no negatives.
        """
        called = np.zeros((len(weights), len(self.order) + 1))
        np.cumsum(np.take(weights, self.order, axis=1), axis=1, out=called[:, 1:])
        total = called[:, -1]

        # both areas grow only at groups with a positive
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
        # a positive outranks the negatives below it, and half of those with an equal score
        below = negatives[:, None] - (after - true)
        tied = (after - before) - gained
        roc = np.einsum("rg,rg->r", gained, below + tied / 2)
        precision = true / np.maximum(after, np.finfo(float).tiny)
        average = np.einsum("rg,rg->r", gained, precision)
        with np.errstate(divide="ignore", invalid="ignore"):
            return roc / (positives * negatives), average / positives


@dataclass(frozen=True)
class ScoredCases:
    """N labelled cases with a model's scores for K classes or findings.

    Each case answers Q calibration questions: for classes one (is the most probable class right),
    for findings K (is the finding present).

    Attributes:
        labels: int [N], or int8 [N, K].
        probabilities: float64 [N, K].
        actual, absent: float64 [N, K], 1 where a case is known to have a class or finding, and
            where it is known to have not.
        hits, false_alarms: float64 [N, K], 1 where it was decided rightly and wrongly.
        known: float64 [N, Q], 1 where the answer to a calibration question is known.
        calibration: float64 [N, Q x 15], in the bin of the probability: answer less probability.
        squared_error: float64 [N, Q], of the probabilities; halved for two classes.
        spotless: True if every known label is the more probable answer.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    actual: np.ndarray
    absent: np.ndarray
    hits: np.ndarray
    false_alarms: np.ndarray
    known: np.ndarray
    calibration: np.ndarray
    squared_error: np.ndarray
    spotless: bool

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> ScoredCases:
        """Prepares labels, probabilities [N, K] and decisions.

        Args:
            labels: int [N], or int8 [N, K] of findings.
            probabilities: [N, K].
            decisions: int [N], by default the most probable class; of findings bool [N, K], by
                default probabilities of at least one half.

        Raises:
            MedtlError: there is no case, or a probability is not a number.
        """
        prepared = cls._of_findings if has_findings(labels) else cls._of_classes
        return prepared(np.asarray(labels), checked(probabilities), decisions)

    @classmethod
    def _of_classes(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None
    ) -> ScoredCases:
        classes = probabilities.shape[1]
        chosen, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        right = chosen == labels
        identity = np.eye(classes)
        actual = identity[labels]
        decided = identity[chosen if decisions is None else np.asarray(decisions)]
        squared_error = np.square(probabilities - actual).sum(axis=1, keepdims=True)
        bins = np.eye(CALIBRATION_BINS)[calibration_bin(confidence)]
        return cls(
            labels=labels,
            probabilities=probabilities,
            actual=actual,
            absent=1 - actual,
            hits=actual * decided,
            false_alarms=(1 - actual) * decided,
            known=np.ones((len(labels), 1)),
            calibration=bins * (right - confidence)[:, None],
            squared_error=squared_error / 2 if classes == 2 else squared_error,
            spotless=bool(right.all()),
        )

    @classmethod
    def _of_findings(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None
    ) -> ScoredCases:
        decided = probabilities >= 0.5 if decisions is None else np.asarray(decisions)
        actual, absent = (np.asarray(labels == each, np.float64) for each in (1, 0))
        known = actual + absent
        gap = (actual - probabilities) * known
        bins = np.eye(CALIBRATION_BINS)[calibration_bin(probabilities)]
        return cls(
            labels=labels,
            probabilities=probabilities,
            actual=actual,
            absent=absent,
            hits=actual * decided,
            false_alarms=absent * decided,
            known=known,
            calibration=(bins * gap[:, :, None]).reshape(len(labels), -1),
            squared_error=gap**2,
            spotless=bool((gap**2 <= 0.25).all()),
        )

    @property
    def multi_label(self) -> bool:
        """True if the labels are findings."""
        return has_findings(self.labels)

    @cached_property
    def rankings(self) -> tuple[Ranking, ...]:
        """The ranking of each class or finding, of the cases with a known label."""
        rankings = []
        for index in range(self.probabilities.shape[1]):
            cases, positive = labelled_cases(self.labels, index)
            ranking = Ranking.of(positive, self.probabilities[cases, index])
            rankings.append(dataclasses.replace(ranking, order=cases[ranking.order]))
        return tuple(rankings)

    @cached_property
    def pooled_ranking(self) -> Ranking:
        """One ranking of all known answers of all classes; its `order` are the cases."""
        cases, columns = np.nonzero(self.actual + self.absent)
        positive = self.actual[cases, columns] == 1
        ranking = Ranking.of(positive, self.probabilities[cases, columns])
        return dataclasses.replace(ranking, order=cases[ranking.order])

    def weighted(self, weights: np.ndarray) -> WeightedCases:
        """Returns the sums under `weights` float64 [R, N]."""
        return WeightedCases(self, weights)


@dataclass(frozen=True)
class WeightedCases:
    """Sums over N scored cases under R weightings; each is computed once, when first used.

    Metrics are functions of them (`medtl.evaluation.metrics`).
    """

    cases: ScoredCases
    weights: np.ndarray  # float64 [R, N]

    @cached_property
    def total(self) -> np.ndarray:
        """Sum of the weights: [R]."""
        return self.weights.sum(axis=1)

    @cached_property
    def actual(self) -> np.ndarray:
        """Cases of each class: [R, K]."""
        return self.weights @ self.cases.actual

    @cached_property
    def absent(self) -> np.ndarray:
        """Cases known not to be of each class: [R, K]."""
        return self.weights @ self.cases.absent

    @cached_property
    def hits(self) -> np.ndarray:
        """Cases of each class that were decided to be of it (true positives): [R, K]."""
        return self.weights @ self.cases.hits

    @cached_property
    def false_alarms(self) -> np.ndarray:
        """Other cases that were decided to be of each class (false positives): [R, K]."""
        return self.weights @ self.cases.false_alarms

    @property
    def auroc(self) -> np.ndarray:
        """Area under the ROC curve of each class against the rest: [R, K]."""
        return self._areas[0]

    @property
    def average_precision(self) -> np.ndarray:
        """Average precision of each class against the rest: [R, K]."""
        return self._areas[1]

    @cached_property
    def calibration_gaps(self) -> np.ndarray:
        """Share of right answers less mean probability, by bin: [R, Q x 15].

        Each gap is weighted by the share of the question's answers in the bin, and by 1 / Q; their
        absolute values sum to the expected calibration error.
        """
        known = self.weights @ self.cases.known
        share = known * (known > 0).sum(axis=1, keepdims=True)
        gaps = (self.weights @ self.cases.calibration).reshape(len(known), -1, CALIBRATION_BINS)
        found = ratio(gaps, np.broadcast_to(share[:, :, None], gaps.shape))
        return np.nan_to_num(found).reshape(len(known), -1)

    @cached_property
    def squared_error(self) -> np.ndarray:
        """Mean squared error of the probabilities, averaged over the Q questions: [R]."""
        known = self.weights @ self.cases.known
        return mean_over_classes(ratio(self.weights @ self.cases.squared_error, known))

    def pooled(self) -> WeightedCases:
        """Returns the same sums with the answers of all classes pooled into one: K is 1."""
        return _PooledCases(self.cases, self.weights, self)

    @cached_property
    def squared_steps(self) -> np.ndarray:
        """Sum of squared distances between class and decision, in steps of their order: [R]."""
        classes = np.arange(self.cases.actual.shape[1])
        decided = (self.cases.hits + self.cases.false_alarms) @ classes
        return self.weights @ np.square(self.cases.actual @ classes - decided)

    @cached_property
    def _areas(self) -> tuple[np.ndarray, np.ndarray]:
        each = [ranking.areas(self.weights) for ranking in self.cases.rankings]
        roc, average = zip(*each, strict=True)
        return np.stack(roc, axis=1), np.stack(average, axis=1)


@dataclass(frozen=True)
class _PooledCases(WeightedCases):
    by_class: WeightedCases

    @cached_property
    def actual(self) -> np.ndarray:
        return self.by_class.actual.sum(axis=1, keepdims=True)

    @cached_property
    def absent(self) -> np.ndarray:
        return self.by_class.absent.sum(axis=1, keepdims=True)

    @cached_property
    def hits(self) -> np.ndarray:
        return self.by_class.hits.sum(axis=1, keepdims=True)

    @cached_property
    def false_alarms(self) -> np.ndarray:
        return self.by_class.false_alarms.sum(axis=1, keepdims=True)

    @cached_property
    def _areas(self) -> tuple[np.ndarray, np.ndarray]:
        roc, average = self.cases.pooled_ranking.areas(self.weights)
        return roc[:, None], average[:, None]
