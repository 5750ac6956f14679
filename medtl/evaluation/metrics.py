"""Table of metrics: one row for each metric that is computed, logged and reported.

A new metric is one more row at the end of this module, with a function of the sums in
`medtl.evaluation.scored_cases.WeightedCases`. It is then logged with its 95 % interval as
`test_NAME`, `test_NAME_low` and `test_NAME_high`, and is part of the tables, the model card and the
comparison report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from medtl.errors import ParameterError
from medtl.evaluation.scored_cases import ScoredCases, WeightedCases, mean_over_classes, ratio


@dataclass(frozen=True)
class GroupCounts:
    """Groups of dependent cases (patients) behind a metric of K classes or findings.

    `Metric.groups` derives one number, or one a class, from them: the groups in the denominator of
    the ratio when every decision is right.

    Attributes:
        actual: float64 [K], groups with a case of the class.
        absent: float64 [K], groups with a case that is known not to be of it.
        total: number of groups.
        multi_label: True for findings.
    """

    actual: np.ndarray
    absent: np.ndarray
    total: float
    multi_label: bool

    @property
    def fewer(self) -> np.ndarray:
        """The smaller of both counts: float64 [K]."""
        return np.minimum(self.actual, self.absent)

    @property
    def defined(self) -> np.ndarray:
        """Flags classes that have a case; findings that also have a case without it: bool [K]."""
        return (self.actual > 0) & ((self.absent > 0) | (not self.multi_label))

    def of_mean(self, each: np.ndarray) -> float:
        """Returns the number behind a mean over classes, from the number behind each class [K].

        It is K times the least, as one class contributes a K-th of the mean.
        """
        known = np.maximum(each, 1.0)[self.defined]
        return float(len(known) * known.min()) if len(known) else 1.0


Score = Callable[[WeightedCases], np.ndarray]
"""Weighted sums to a metric under R weightings: [R], or [R, K] with a value for each class."""


def _unit_interval(classes: int, multi_label: bool) -> tuple[float, float]:
    return 0.0, 1.0


def _fewer(counts: GroupCounts) -> np.ndarray:
    return counts.fewer


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric: its computation, its range, its sampling error and its place in reports.

    A function that returns [R, K] gives a value for each class against the rest. The metric is then
    that of the second class of two (the positive one), and else the unweighted mean over the
    classes or findings, without those for which it is undefined (NaN).

    Attributes:
        name: name in MLflow and in tables.
        label: name in reports.
        meaning: explanation in the model card.
        single_label: function for classes.
        multi_label: function for findings; None for the same function.
        higher_is_better: False for errors.
        overall: True if it is one number per split; False for tables by class only.
        per_class: True for a column in the tables by class. Its functions return [R, K] from
            the sums of `WeightedCases`, so that they also hold for pooled answers.
        headline: True if it is printed on the console.
        subgroups: True if it is computed for subgroups.
        bounds: number of classes and whether they are findings, to the lowest and highest value.
        groups: effective number of groups behind a flawless value, one number or [K], from which
            the interval of such a value is computed. A share of all cases has `total` (accuracy);
            of the cases with the class, or of those decided to be of it, `actual` (sensitivity,
            precision); of the cases without the class, or of those decided to be without it,
            `absent` (specificity, negative predictive value); a mean over classes
            `GroupCounts.of_mean` (balanced accuracy). The default is the smaller of `actual` and
            `absent`, for a metric that needs both (F1).
        gaps: for a sum of absolute gaps, a function that returns the gaps [R, B]; its interval
            allows for their noise (`medtl.evaluation.jackknife.GapEstimate`).
        of_probabilities: True for an error of probabilities, which one unseen misclassification
            may raise (`medtl.evaluation.jackknife.Estimate.unseen`).
        heavy_tailed: True if few cases contribute most of the variance.
        ordinal: True for a metric that is defined only for classes in an order, such as grades.
    """

    name: str
    label: str
    meaning: str
    single_label: Score
    multi_label: Score | None = None
    higher_is_better: bool = True
    overall: bool = True
    per_class: bool = False
    headline: bool = False
    subgroups: bool = False
    bounds: Callable[[int, bool], tuple[float, float]] = _unit_interval
    groups: Callable[[GroupCounts], float | np.ndarray] = _fewer
    gaps: Score | None = None
    of_probabilities: bool = False
    heavy_tailed: bool = False
    ordinal: bool = False

    def by_class(self, cases: WeightedCases) -> np.ndarray:
        """Computes the values of the classes [R, K], or one value [R] where it has no others."""
        of_findings = self.multi_label or self.single_label
        return (of_findings if cases.cases.multi_label else self.single_label)(cases)

    def score(self, cases: WeightedCases) -> np.ndarray:
        """Computes the metric: [R]."""
        values = self.by_class(cases)
        if values.ndim == 1:
            return values
        if values.shape[1] == 2 and not cases.cases.multi_label:
            return values[:, 1]
        return mean_over_classes(values)

    def mean(self, cases: WeightedCases) -> np.ndarray:
        """Computes the unweighted mean over all classes, also over two (macro average): [R]."""
        return mean_over_classes(self.by_class(cases))

    def pooled(self, cases: WeightedCases) -> np.ndarray:
        """Computes the metric of the pooled answers of all classes (micro average): [R].

        For classes each case has one label and gets one decision: a wrong one is a false negative
        of one class and a false positive of another, so that micro sensitivity, precision and F1
        are all the accuracy. Areas are those of scikit-learn's `average="micro"`.
        """
        return self.by_class(cases.pooled())[:, 0]


_TABLE: dict[str, Metric] = {}


def register(metric: Metric) -> None:
    """Adds a row to the table of metrics.

    Raises:
        ValueError: there is a metric of this name.
    """
    if metric.name in _TABLE:
        raise ValueError(f"there is a metric {metric.name} already")
    _TABLE[metric.name] = metric


def all_metrics() -> tuple[Metric, ...]:
    """Returns the rows in the order of reports."""
    return tuple(_TABLE.values())


def overall_metrics(ordinal: bool = False) -> tuple[Metric, ...]:
    """Returns the metrics that are one number per split; with `ordinal` those of an order, too."""
    return tuple(each for each in all_metrics() if each.overall and each.ordinal <= ordinal)


def class_metrics() -> tuple[Metric, ...]:
    """Returns the metrics in tables by class."""
    return tuple(each for each in all_metrics() if each.per_class)


def headline_metrics(ordinal: bool = False) -> tuple[Metric, ...]:
    """Returns the metrics of `overall_metrics` that are printed on the console."""
    return tuple(each for each in overall_metrics(ordinal) if each.headline)


def subgroup_metrics() -> tuple[Metric, ...]:
    """Returns the metrics of subgroups."""
    return tuple(each for each in overall_metrics() if each.subgroups)


def metric_named(name: str) -> Metric:
    """Returns the overall metric `name`.

    Raises:
        ParameterError: there is no such metric.
    """
    known = {each.name: each for each in overall_metrics()}
    if name not in known:
        raise ParameterError("metric", name, f"one of {', '.join(known)}")
    return known[name]


def scores(cases: ScoredCases, weights: np.ndarray, ordinal: bool = False) -> dict[str, np.ndarray]:
    """Computes `overall_metrics`, by name, under `weights` float64 [R, N]: [R] each."""
    weighted = cases.weighted(weights)
    return {each.name: each.score(weighted) for each in overall_metrics(ordinal)}


def class_scores(cases: ScoredCases, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the metrics of each class, by name, under `weights` float64 [R, N]: [R, K] each.

    A class without a case in a weighting has NaN there.
    """
    weighted = cases.weighted(weights)
    return {each.name: each.by_class(weighted) for each in class_metrics()}


def _sensitivity(cases: WeightedCases) -> np.ndarray:
    return ratio(cases.hits, cases.actual)


def _specificity(cases: WeightedCases) -> np.ndarray:
    return ratio(cases.absent - cases.false_alarms, cases.absent)


def _precision(cases: WeightedCases) -> np.ndarray:
    found = ratio(cases.hits, cases.hits + cases.false_alarms)
    return np.where(cases.actual > 0, found, np.nan)


def _f1(cases: WeightedCases) -> np.ndarray:
    found = ratio(2 * cases.hits, cases.actual + cases.hits + cases.false_alarms)
    return np.where(cases.actual > 0, found, np.nan)


def _right_classes(cases: WeightedCases) -> np.ndarray:
    return cases.hits.sum(axis=1) / cases.total


def _right_findings(cases: WeightedCases) -> np.ndarray:
    known = cases.actual + cases.absent
    return ratio(cases.hits + cases.absent - cases.false_alarms, known)


def _mean_sensitivity(cases: WeightedCases) -> np.ndarray:
    return mean_over_classes(_sensitivity(cases))


def _balance_of_findings(cases: WeightedCases) -> np.ndarray:
    return (_sensitivity(cases) + _specificity(cases)) / 2


def _matthews_of_classes(cases: WeightedCases) -> np.ndarray:
    """Computes Matthews' correlation of any number of classes (Gorodkin 2004); 0 if undefined."""
    total, actual = cases.total, cases.actual
    decided = cases.hits + cases.false_alarms
    covariance = cases.hits.sum(axis=1) * total - (actual * decided).sum(axis=1)
    spread = (total**2 - (actual**2).sum(axis=1)) * (total**2 - (decided**2).sum(axis=1))
    return np.where(spread > 0, ratio(covariance, np.sqrt(spread)), 0.0)


def _matthews_of_findings(cases: WeightedCases) -> np.ndarray:
    """Computes Matthews' correlation of each finding; 0 if undefined, NaN without labels."""
    actual, absent, hits, false_alarms = (
        cases.actual, cases.absent, cases.hits, cases.false_alarms,
    )  # fmt: skip
    known, called = actual + absent, hits + false_alarms
    spread = actual * absent * called * (known - called)
    covariance = hits * (absent - false_alarms) - false_alarms * (actual - hits)
    found = np.where(spread > 0, ratio(covariance, np.sqrt(spread)), 0.0)
    return np.where(known > 0, found, np.nan)


def _quadratic_kappa(cases: WeightedCases) -> np.ndarray:
    """Computes Cohen's kappa with quadratic weights (Cohen 1968, Psychological Bulletin 70:213).

    One less the mean squared distance between class and decision, counted in steps of the order,
    over that of independent ones. NaN if all cases have and get one and the same class.
    """
    classes, total = np.arange(cases.actual.shape[1]), cases.total
    decided = cases.hits + cases.false_alarms
    squares = np.square(classes[:, None] - classes)
    chance = ((cases.actual @ squares) * decided).sum(axis=1) / total
    return 1 - ratio(cases.squared_steps, chance)


def _all_groups(counts: GroupCounts) -> float:
    return counts.total


def _groups_with_class(counts: GroupCounts) -> np.ndarray:
    return counts.actual


def _groups_of_area(counts: GroupCounts) -> np.ndarray:
    """Returns 4 m n / (m + n + 2) for m groups with the class and n without.

    Near 1 the variance of the area is that of a proportion of so many cases (limit of the variance
    of Hanley & McNeil 1982 for exponential scores, as in Newcombe 2006, Statistics in Medicine
    25:559).
    """
    return 4 * counts.actual * counts.absent / (counts.actual + counts.absent + 2)


def _groups_of_balance(counts: GroupCounts) -> float:
    return counts.of_mean(counts.fewer if counts.multi_label else counts.actual)


def _groups_of_rarest(counts: GroupCounts) -> float:
    return float(max(1.0, min(counts.fewer[counts.defined], default=1.0)))


for _row in (
    Metric(
        name="auroc",
        label="AUROC",
        meaning="how often an image of a class scores higher for it than an image of another; 0.5 "
        "is chance",
        single_label=lambda cases: cases.auroc,
        per_class=True,
        headline=True,
        subgroups=True,
        groups=_groups_of_area,
    ),
    Metric(
        name="auprc",
        label="AUPRC",
        meaning="how pure the images most suspected of a class are; the share of the class is "
        "chance",
        single_label=lambda cases: cases.average_precision,
        per_class=True,
    ),
    Metric(
        name="accuracy",
        label="accuracy",
        meaning="share of images called right",
        single_label=_right_classes,
        multi_label=_right_findings,
        groups=_all_groups,
    ),
    Metric(
        name="balanced_accuracy",
        label="balanced accuracy",
        meaning="the same, every class counting equally",
        single_label=_mean_sensitivity,
        multi_label=_balance_of_findings,
        headline=True,
        groups=_groups_of_balance,
    ),
    Metric(
        name="sensitivity",
        label="sensitivity",
        meaning="share of a class's images that are called so",
        single_label=_sensitivity,
        per_class=True,
        headline=True,
        subgroups=True,
        groups=_groups_with_class,
    ),
    Metric(
        name="specificity",
        label="specificity",
        meaning="share of the other images that are not called so",
        single_label=_specificity,
        per_class=True,
        headline=True,
        subgroups=True,
        groups=lambda counts: counts.absent,
    ),
    Metric(
        name="precision",
        label="precision",
        meaning="share of the images called so that are of the class",
        single_label=_precision,
        overall=False,
        per_class=True,
        groups=_groups_with_class,
    ),
    Metric(
        name="f1",
        label="F1",
        meaning="balance of sensitivity and of the share of calls that are right",
        single_label=_f1,
        per_class=True,
        headline=True,
    ),
    Metric(
        name="mcc",
        label="MCC",
        meaning="agreement with the truth beyond chance (Matthews' correlation); 0 is none, 1 is "
        "full",
        single_label=_matthews_of_classes,
        multi_label=_matthews_of_findings,
        bounds=lambda classes, multi_label: (-1.0, 1.0),
        groups=_groups_of_rarest,
    ),
    Metric(
        name="kappa",
        label="weighted kappa",
        meaning="agreement of the grades beyond chance, a miss by two grades counting four times "
        "that by one (quadratic weights); 0 is chance, 1 is full",
        single_label=_quadratic_kappa,
        headline=True,
        bounds=lambda classes, multi_label: (-1.0, 1.0),
        groups=_groups_of_rarest,
        ordinal=True,
    ),
    # of the most probable class, or of each finding, over 15 bins of equal width: Guo et al. 2017,
    # arXiv 1706.04599
    Metric(
        name="ece",
        label="calibration error",
        meaning="mean gap between the probability given and how often it was right; 0 is best",
        single_label=lambda cases: np.abs(cases.calibration_gaps).sum(axis=1),
        higher_is_better=False,
        headline=True,
        groups=_all_groups,
        gaps=lambda cases: cases.calibration_gaps,
        of_probabilities=True,
    ),
    # of several classes the sum of their squared errors, of two classes that of the positive one
    Metric(
        name="brier",
        label="Brier score",
        meaning="mean squared error of the probabilities; 0 is best",
        single_label=lambda cases: cases.squared_error,
        higher_is_better=False,
        bounds=lambda classes, multi_label: (0.0, 2.0 if classes > 2 and not multi_label else 1.0),
        groups=_all_groups,
        of_probabilities=True,
        heavy_tailed=True,
    ),
):
    register(_row)
