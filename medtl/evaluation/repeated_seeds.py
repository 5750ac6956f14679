"""Scores of trainings that differ in their seed only: sampling of patients and of seeds apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.evaluation.confidence_intervals import Sampling
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import headline_metrics, overall_metrics
from medtl.evaluation.scored_cases import DecidedCases

STD = "_std"  # suffix of the standard deviation over seeds


@dataclass(frozen=True)
class SeedScores:
    """Test scores of repeated trainings on the same cases.

    Attributes:
        table: a row a seed: `seed` and each metric.
        means: mean over seeds by metric; the interval covers the sampling of patients, not of
            seeds.
        spreads: standard deviation over seeds by metric.
    """

    table: pd.DataFrame
    means: Mapping[str, Interval]
    spreads: Mapping[str, float]

    def lines(self) -> list[str]:
        """Formats means and spreads of the headline metrics."""
        lines = [
            f"over {len(self.table)} seeds   (mean with its 95 % interval over patients; standard "
            "deviation over seeds)"
        ]
        for metric in headline_metrics():
            lines.append(f"  {metric.name.replace('_', ' '):<20}{self.formatted(metric.name)}")
        return lines

    def formatted(self, metric: str) -> str:
        """Formats mean, interval and spread of a metric."""
        return f"{self.means[metric]}, over seeds ± {self.spreads[metric]:.3f}"


def over_seeds(
    seeds: Sequence[int], repeats: Sequence[DecidedCases], seed: int, resamples: int
) -> SeedScores:
    """Computes the scores of equal test cases under the models of several seeds.

    `seed` and `resamples` are those of the interval of the calibration error.
    """
    metrics = overall_metrics()
    first = repeats[0]
    prepared = [each.scored() for each in repeats]
    ones = np.ones((1, len(first.labels)))
    each = np.array([[row.score(cases.weighted(ones))[0] for row in metrics] for cases in prepared])
    sampling = Sampling.of(first.labels, first.groups, len(first.classes), seed, resamples)

    def mean(weights: np.ndarray) -> np.ndarray:
        weighted = [cases.weighted(weights) for cases in prepared]
        return np.column_stack(
            [np.mean([row.score(cases) for cases in weighted], axis=0) for row in metrics]
        )

    columns = sampling.table(mean).T
    means = {
        row.name: sampling.overall(row, column, prepared).interval
        for row, column in zip(metrics, columns, strict=True)
    }
    names = [row.name for row in metrics]
    table = pd.DataFrame(each, columns=names)
    table.insert(0, "seed", list(seeds))
    spreads = dict(zip(names, each.std(axis=0, ddof=1).tolist(), strict=True))
    return SeedScores(table, means, spreads)
