"""How sure a metric is: 95 % bootstrap intervals over patients, alone and between two models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.errors import ParameterError
from medtl.evaluation.averages import PooledCases, macro
from medtl.evaluation.findings import PooledFindings, ScoredFindings
from medtl.evaluation.metrics import OVERALL, PER_CLASS, Metrics, ScoredCases
from medtl.evaluation.truth import has_findings

# Weights held at a time: under 1 MB, so that a chunk and its sums stay near the processor.
CHUNK_VALUES = 100_000

Averages = dict[str, dict[str, np.ndarray]]  # macro and micro, metric to [R]


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval; bounds are NaN where none can be given."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Measures:
    """What was measured: `summary` metric to interval, and two tables.

    The columns of `per_class`, a row a class, are `class`, `cases`, and for each metric M of a
    class `M`, `M_low` and `M_high`. Those of `averages`, a row a metric of a class, are `metric`,
    and `macro`, `micro` with their bounds likewise; macro is over all classes, also over two.
    """

    summary: dict[str, Interval]
    per_class: pd.DataFrame
    averages: pd.DataFrame


@dataclass(frozen=True)
class Difference:
    """The metric of b less that of a, with its 95 % interval; `confidence`: is that of b higher?"""

    value: float
    low: float
    high: float
    confidence: float


def measure(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: np.ndarray,
    classes: Sequence[str],
    seed: int,
    resamples: int = 2000,
    decisions: np.ndarray | None = None,
) -> Measures:
    """Every metric of `medtl.evaluation.metrics` with its percentile bootstrap interval.

    Args:
        labels: int [N], index into `classes`; of findings int8 [N, K], as `truth` has them.
        probabilities: [N, K], rows that sum to one; of findings each by itself.
        patients: [N], any codes; all cases of a patient are drawn together. Where each case has
            its own, the bootstrap is over cases. The draw is not stratified by class, so the
            intervals hold the chance in the class counts too.
        classes: K names.
        seed: equal seeds give equal intervals.
        resamples: bootstrap resamples.
        decisions: int [N], what was decided at an operating point; without it the most probable
            class. Of findings bool [N, K], without it those from one half on. Ranking and
            calibration metrics do not depend on it.

    A class without a case has NaN, and the means are over the other classes. A resample that
    happens to lack a class is left out of that class's interval and, in the means, is over the
    classes it has. A value of exactly 0 or 1 has an interval of no width: no resample of flawless
    cases has a flaw. Resampling makes a calibration error larger, so that with few cases the
    interval of `ece` lies mostly above the value. With one patient there are no bounds.
    """
    cases = scored(labels, probabilities, decisions)
    pools = PooledFindings if has_findings(labels) else PooledCases
    pooled = pools.of(labels, probabilities, decisions)

    def measured(weights: np.ndarray) -> tuple[Metrics, Averages]:
        found = cases.metrics(weights)
        return found, {"macro": macro(found.per_class), "micro": pooled.micro(weights)}

    whole, average = measured(np.ones((1, len(cases.actual))))
    each = [measured(weights) for weights in resamplings(patients, seed, resamples)]
    draws, drawn_averages = [found for found, _ in each], [found for _, found in each]
    summary = {
        name: percentile_interval(whole.overall[name], [draw.overall[name] for draw in draws])
        for name in OVERALL
    }
    per_class: dict[str, Sequence] = {
        "class": list(classes),
        "cases": cases.actual.sum(axis=0).astype(int),
    }
    for name in PER_CLASS:
        intervals = [
            percentile_interval(
                whole.per_class[name][:, index], [draw.per_class[name][:, index] for draw in draws]
            )
            for index in range(len(classes))
        ]
        per_class |= _columns(name, intervals)
    averages: dict[str, Sequence] = {"metric": PER_CLASS}
    for kind in ("macro", "micro"):
        intervals = [
            percentile_interval(average[kind][name], [draw[kind][name] for draw in drawn_averages])
            for name in PER_CLASS
        ]
        averages |= _columns(kind, intervals)
    return Measures(summary, pd.DataFrame(per_class), pd.DataFrame(averages))


def paired_difference(
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    patients: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Difference:
    """By how much b beats a on the same cases, from resamples of patients that both share.

    `confidence` is the share of resamples in which b's `metric` is the higher one, ties counting
    half. For `ece` and `brier` the higher is the worse. Decisions are the most probable class.
    The arguments are those of `measure`; with one patient bounds and confidence are NaN.

    Raises:
        ParameterError: there is no such metric.
    """
    pair = (probabilities_a, probabilities_b)
    return mean_difference(labels, [pair], patients, metric, seed, resamples)


def mean_difference(
    labels: np.ndarray,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    patients: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Difference:
    """`paired_difference` averaged over `pairs` (a, b): two recipes, trained with several seeds.

    The interval holds the chance in the patients, not that in the seeds.
    """
    if metric not in OVERALL:
        raise ParameterError("metric", metric, f"one of {', '.join(OVERALL)}")
    prepared = [tuple(scored(labels, each) for each in pair) for pair in pairs]

    def differences(weights: np.ndarray) -> np.ndarray:
        each = [
            b.metrics(weights).overall[metric] - a.metrics(weights).overall[metric]
            for a, b in prepared
        ]
        return np.mean(each, axis=0)

    draws = [differences(weights) for weights in resamplings(patients, seed, resamples)]
    bounds = percentile_interval(differences(np.ones((1, len(labels)))), draws)
    drawn = _numbers(draws)
    confidence = np.mean((drawn > 0) + 0.5 * (drawn == 0)) if len(drawn) else np.nan
    return Difference(bounds.value, bounds.low, bounds.high, float(confidence))


def mean_score(
    labels: np.ndarray,
    repeats: Sequence[np.ndarray],
    patients: np.ndarray,
    metric: str,
    seed: int,
    resamples: int = 2000,
) -> Interval:
    """A metric averaged over models that score the same cases: one recipe, several seeds.

    `repeats` are probabilities [N, K]. The interval holds the chance in the patients, not that in
    the seeds. The other arguments are those of `measure`.
    """
    prepared = [scored(labels, each) for each in repeats]

    def scores(weights: np.ndarray) -> np.ndarray:
        return np.mean([each.metrics(weights).overall[metric] for each in prepared], axis=0)

    draws = [scores(weights) for weights in resamplings(patients, seed, resamples)]
    return percentile_interval(scores(np.ones((1, len(labels)))), draws)


def scored(
    labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
) -> ScoredCases | ScoredFindings:
    """The cases with a model's scores, by what their labels are; arguments as in `measure`."""
    kind = ScoredFindings if has_findings(labels) else ScoredCases
    return kind.of(labels, probabilities, decisions)


def resamplings(patients: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yields [r, N] weights, `resamples` rows in all: how often each case is in each resample.

    A resample draws as many patients as there are, with replacement. One patient yields nothing.
    """
    _, codes = np.unique(patients, return_inverse=True)
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


def percentile_interval(value: np.ndarray, draws: Sequence[np.ndarray]) -> Interval:
    """The value [1] with the 2.5th and 97.5th percentile of its draws, those that are numbers.

    Resampling makes a calibration error larger, now and then more than the value itself; the
    interval is then drawn out to hold its value.
    """
    drawn = _numbers(draws)
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Interval(float(value[0]), float(min(low, value[0])), float(max(high, value[0])))


def _columns(name: str, intervals: Sequence[Interval]) -> dict[str, list[float]]:
    """The columns of a table for intervals, one a row: `name` and its bounds."""
    return {
        name: [each.value for each in intervals],
        f"{name}_low": [each.low for each in intervals],
        f"{name}_high": [each.high for each in intervals],
    }


def _numbers(draws: Sequence[np.ndarray]) -> np.ndarray:
    """All draws in one array, without those that are not numbers."""
    joined = np.concatenate([*draws, np.empty(0)])
    return joined[~np.isnan(joined)]
