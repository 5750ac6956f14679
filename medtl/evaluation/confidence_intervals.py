"""95 % intervals of metrics over groups of cases, and of differences between models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from medtl.evaluation.jackknife import (
    CHUNK_VALUES,
    LEVEL,
    Blocks,
    ByStratum,
    Difference,
    Estimate,
    Evidence,
    Interval,
    by_tails,
    difference,
    evidence,
    gap_estimate,
    quantile,
    score_bounds,
)
from medtl.evaluation.metrics import (
    Metric,
    class_metrics,
    metric_named,
    overall_metrics,
)
from medtl.evaluation.scored_cases import ScoredCases, has_findings


@dataclass(frozen=True)
class Measures:
    """Metrics with 95 % intervals.

    Attributes:
        summary: interval by name of the metric.
        per_class: a row a class: `class`, `cases`, and `M`, `M_low`, `M_high` for each metric M of
            classes.
        averages: a row a metric of classes: `metric`, and `macro` and `micro` with bounds; macro is
            over all classes, also over two.
    """

    summary: dict[str, Interval]
    per_class: pd.DataFrame
    averages: pd.DataFrame


@dataclass(frozen=True)
class Sampling:
    """N cases and their groups, the source of a metric's sampling error.

    `labels` and `groups` as in `measure`; `seed` draws the blocks of more than 400 groups, and the
    `resamples` bootstrap resamples of the calibration error.
    """

    labels: np.ndarray
    groups: np.ndarray
    classes: int
    seed: int
    resamples: int
    blocks: Blocks
    freedom: ByStratum
    evidence: Evidence

    @classmethod
    def of(
        cls, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int, resamples: int
    ) -> Sampling:
        """Prepares the arguments of `measure`; `classes` is their number."""
        labels, blocks = np.asarray(labels), Blocks.of(groups, seed)
        return cls(
            labels, groups, classes, seed, resamples, blocks,
            ByStratum(blocks.strata(labels)), evidence(labels, groups, classes),
        )  # fmt: skip

    def table(self, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Evaluates metrics `of` weights ([R, N] to [R, M]) on all cases and without each block.

        The result is [1 + J, M]; with a single group [1, M].
        """
        parts = [of(np.ones((1, len(self.labels))))]
        if self.blocks.count > 1:
            parts += [of(weights) for weights in self.blocks.without()]
        return np.concatenate(parts)

    def estimate(self, column: np.ndarray, behind: float, metric: Metric | None = None) -> Estimate:
        """Returns the estimate of one column of `table`; without a metric its range is 0 to 1."""
        least, most = (0.0, 1.0) if metric is None else self._bounds(metric)
        moves = self.blocks.moves(column[1:])
        return Estimate(float(column[0]), moves, self.freedom, behind, least, most)

    def overall(
        self, metric: Metric, column: np.ndarray, models: Sequence[ScoredCases]
    ) -> Estimate:
        """Returns the estimate of a metric's column of `table`, averaged over `models`."""
        found = self.estimate(column, self.evidence.overall[metric.name], metric)
        if metric.of_probabilities and all(model.spotless for model in models):
            found = replace(found, unseen=1 / self.evidence.groups)
        if metric.heavy_tailed:
            found = replace(found, freedom=by_tails)
        if metric.gaps is None:
            return found
        gaps_of = metric.gaps

        def gaps(weights: np.ndarray) -> np.ndarray:
            return np.hstack([gaps_of(each.weighted(weights)) / len(models) for each in models])

        (whole,) = gaps(np.ones((1, len(self.labels))))
        drawn = [gaps(each) for each in resamplings(self.groups, self.seed, self.resamples)]
        return gap_estimate(found, whole, drawn, len(np.unique(self.groups)))

    def _bounds(self, metric: Metric) -> tuple[float, float]:
        return metric.bounds(self.classes, has_findings(self.labels))


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
    seed: int,
    resamples: int = 2000,
    decisions: np.ndarray | None = None,
) -> Measures:
    """Computes every metric of `medtl.evaluation.metrics` with its 95 % interval.

    The interval is that of `medtl.evaluation.jackknife`: a t interval on the logit scale, from the
    jackknife over groups, and for `ece` one from resampled gaps. `python -m benchmarks coverage`
    simulates their coverage.

    Args:
        labels: int [N], index into `classes`; for findings int8 [N, K], as in `ScoredCases`.
        probabilities: [N, K], rows that sum to one; independent for findings.
        groups: [N], any codes; cases of one group (a patient, or identical images) are dependent.
            The class counts are treated as random.
        classes: K names.
        seed: equal seeds give equal intervals.
        resamples: bootstrap resamples of groups, for the interval of `ece`.
        decisions: int [N], decided classes; by default the most probable one. For findings bool
            [N, K]; by default probabilities of at least one half. Ranking and calibration metrics
            do not depend on it.

    A class without a case has NaN; means are over the other classes. A class of a single group has
    the score interval of one case. With one group in total the bounds are NaN.
    """
    cases = ScoredCases.of(labels, probabilities, decisions)
    return measured(Sampling.of(labels, groups, len(classes), seed, resamples), cases, classes)


def measured(
    sampling: Sampling, cases: ScoredCases, classes: Sequence[str], ordinal: bool = False
) -> Measures:
    """Computes the same as `measure` for prepared cases; `ordinal` if the classes are in order."""
    overall, by_class = overall_metrics(ordinal), class_metrics()

    def values(weights: np.ndarray) -> np.ndarray:
        weighted = cases.weighted(weights)
        return np.column_stack(
            [
                *(each.score(weighted) for each in overall),
                *(each.by_class(weighted) for each in by_class),
                *(each.mean(weighted) for each in by_class),
                *(each.pooled(weighted) for each in by_class),
            ]
        )

    columns = iter(sampling.table(values).T)
    summary = {
        each.name: sampling.overall(each, next(columns), [cases]).interval for each in overall
    }
    per_class: dict[str, Sequence] = {
        "class": list(classes),
        "cases": cases.actual.sum(axis=0).astype(int),
    }
    behind = sampling.evidence
    for metric in by_class:
        intervals = [
            sampling.estimate(next(columns), each, metric).interval
            for each in behind.per_class[metric.name]
        ]
        per_class |= _columns(metric.name, intervals)
    averages: dict[str, Sequence] = {"metric": [each.name for each in by_class]}
    macro = [
        sampling.estimate(next(columns), behind.macro[each.name], each).interval
        for each in by_class
    ]
    micro = [sampling.estimate(next(columns), behind.groups, each).interval for each in by_class]
    averages |= _columns("macro", macro) | _columns("micro", micro)
    return Measures(summary, pd.DataFrame(per_class), pd.DataFrame(averages))


def paired_difference(
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    groups: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Difference:
    """Computes the metric of b less that of a on the same cases.

    The interval and `confidence` are those of `medtl.evaluation.jackknife.difference`. For `ece`
    and `brier` higher is worse. Decisions are the most probable class. Arguments as in `measure`;
    with one group bounds and confidence are NaN.

    Raises:
        ParameterError: there is no such metric.
    """
    pair = (probabilities_a, probabilities_b)
    return mean_difference(labels, [pair], groups, metric, seed, resamples)


def mean_difference(
    labels: np.ndarray,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    groups: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Difference:
    """Averages `paired_difference` over `pairs` (a, b): two recipes, trained with several seeds.

    The interval covers the sampling of groups, not of seeds. Equal scores give exactly 0.
    """
    a, b = (
        mean_estimate(labels, each, groups, metric, seed, resamples)
        for each in zip(*pairs, strict=True)
    )
    if len(a.moves) > 1 and all(_alike(labels, *pair) for pair in pairs):
        return Difference(0.0, 0.0, 0.0, 0.5)
    return difference(a, b)


def mean_score(
    labels: np.ndarray,
    repeats: Sequence[np.ndarray],
    groups: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Interval:
    """Averages a metric over models that score the same cases: one recipe, several seeds.

    `repeats` are probabilities [N, K]. The interval covers the sampling of groups, not of seeds.
    Other arguments as in `measure`.
    """
    return mean_estimate(labels, repeats, groups, metric, seed, resamples).interval


def mean_estimate(
    labels: np.ndarray,
    repeats: Sequence[np.ndarray],
    groups: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Estimate:
    """Returns the `Estimate` behind `mean_score`.

    Raises:
        ParameterError: there is no such metric.
    """
    row = metric_named(metric)
    prepared = [ScoredCases.of(labels, each) for each in repeats]
    sampling = Sampling.of(labels, groups, np.shape(repeats[0])[1], seed, resamples)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.mean([row.score(each.weighted(weights)) for each in prepared], axis=0)[:, None]

    return sampling.overall(row, sampling.table(mean)[:, 0], prepared)


def resamplings(groups: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yields weights [r, N], `resamples` rows in total: the count of each case in each resample.

    A resample draws as many groups as there are, with replacement. One group yields nothing.
    """
    _, codes = np.unique(groups, return_inverse=True)
    count = int(codes.max()) + 1
    if count == 1:
        return
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK_VALUES // len(codes))
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(count, size=(size, count))
        drawn += np.arange(size)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield times[:, codes].astype(np.float64)


def _alike(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> bool:
    """Returns whether two models score all cases with known labels alike."""
    asked = np.asarray(labels) >= 0 if has_findings(labels) else True
    return bool(np.all((np.asarray(first) == np.asarray(second)) | np.logical_not(asked)))


def _columns(name: str, intervals: Sequence[Interval]) -> dict[str, list[float]]:
    """Returns the columns of a table for intervals, one a row: `name` and its bounds."""
    return {
        name: [each.value for each in intervals],
        f"{name}_low": [each.low for each in intervals],
        f"{name}_high": [each.high for each in intervals],
    }


def rate(happened: np.ndarray, groups: np.ndarray) -> Interval:
    """Computes the share of true `happened` bool [N], with its 95 % interval.

    With one image per group (`groups`, any codes [N]) the interval is Wilson's (1927). Otherwise it
    is Wilson's for the effective number of images, given by the variance over groups, with the
    quantile of Student's t (Korn & Graubard 1998, Survey Methodology 24:193, there with the
    interval of Clopper & Pearson). That number is at most the number of images; for a share of
    exactly 0 or 1 it is the number of groups.

    Raises:
        ValueError: no images.
    """
    if len(happened) == 0:
        raise ValueError("no image to count")
    _, codes = np.unique(groups, return_inverse=True)
    share, count = float(happened.mean()), int(codes.max()) + 1
    if count == len(happened) or share in (0.0, 1.0):
        return wilson(share, count)
    if count == 1:
        return Interval(share, math.nan, math.nan)
    sums = np.bincount(codes, weights=happened - share)
    variance = np.square(sums).sum() * count / (count - 1) / len(happened) ** 2
    most = len(happened)
    effective = min(most, share * (1 - share) / variance) if variance > 0 else most
    return Interval(share, *score_bounds(share, effective, quantile(LEVEL, count - 1)))


def wilson(share: float, count: int) -> Interval:
    """Computes the 95 % score interval of a share of `count` independent cases.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", J. Am.
    Stat. Assoc. 22:209.
    """
    return Interval(share, *score_bounds(share, count, quantile(LEVEL, math.inf)))
