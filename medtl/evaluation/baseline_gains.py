"""Baselines of a study: scores on its test cases, and the gain of each arm over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medtl.evaluation.confidence_intervals import mean_difference, measure
from medtl.evaluation.jackknife import Interval

GAIN_COLUMNS = (
    "arm", "baseline", "difference", "low", "high", "confidence", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class Cases:
    """Test cases of a comparison.

    Attributes:
        labels: int [N], index into `classes`.
        groups: [N], any codes; cases of one group are dependent.
        classes: K names.
        unit: sampling unit of intervals, see `Dataset.unit`.
        patients: number of known patients; patients with an identical image are one group.
    """

    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    unit: str = "patients"
    patients: int = 0


@dataclass(frozen=True)
class Reference:
    """Baseline of a study: fitted on a share of the training images, scored on the test cases.

    Attributes:
        name: name in the report, unique.
        kind: its input (frozen features, brightness, file properties).
        architecture: frozen backbone of its features; '' for other inputs.
        weights: weights of this backbone, as in the cells.
        modality: modality, as in the cells.
        fraction: share of the training split that it is fitted on.
        seeds: seeds of the cells with this backbone and share.
        probabilities: [N, K] of the test cases, calibrated.
    """

    name: str
    kind: str
    architecture: str
    weights: str
    modality: str
    fraction: float
    seeds: tuple[int, ...]
    probabilities: np.ndarray

    def is_of(self, cell: Mapping[str, object]) -> bool:
        """Returns whether a cell with these settings has the same backbone and share."""
        own = (self.architecture, self.weights, self.modality, self.fraction)
        names = ("architecture", "weights", "modality", "fraction")
        return own == tuple(cell[name] for name in names) and cell["seed"] in self.seeds

    def settings(self) -> dict[str, object]:
        """Returns the settings that it has in common with cells."""
        return {
            "series": self.kind,
            "architecture": self.architecture,
            "weights": self.weights,
            "fraction": self.fraction,
            "seed": self.seeds[0],
            "modality": self.modality,
        }


@dataclass(frozen=True)
class ComparisonBaselines:
    """Baselines of a study, with the gain of each arm over them.

    Attributes:
        references: in the order of the report.
        scores: intervals by reference and metric.
        gains: a row an arm with a reference for its backbone: `arm`, `baseline` (names of its
            references, joined by semicolons), `difference` (arm less baseline), `low`, `high`,
            `confidence` (that the arm is better), `seeds`.
        notes: lines on missing baselines.
    """

    references: tuple[Reference, ...] = ()
    scores: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    gains: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(GAIN_COLUMNS)))
    notes: tuple[str, ...] = ()

    def gain_of(self, arm: str) -> dict[str, float]:
        """Returns the gain of an arm as columns of a table; none without a reference."""
        own = self.gains[self.gains["arm"] == arm]
        if own.empty:
            return {}
        first = own.iloc[0]
        return {
            "baseline_gain": first["difference"],
            "baseline_gain_low": first["low"],
            "baseline_gain_high": first["high"],
        }

    def table(self) -> pd.DataFrame:
        """Builds a row a reference: its name, the settings in common with cells, its scores."""
        rows = []
        for each in self.references:
            row = {"baseline": each.name, **each.settings()}
            for metric, interval in self.scores[each.name].items():
                row[f"test_{metric}"] = interval.value
                row[f"test_{metric}_low"], row[f"test_{metric}_high"] = interval.low, interval.high
            rows.append(row)
        return pd.DataFrame(rows)


def compare_with_baselines(
    cases: Cases,
    references: Sequence[Reference],
    arms: Mapping[str, Sequence[tuple[Mapping[str, object], np.ndarray]]],
    metric: str,
    seed: int,
    notes: Sequence[str] = (),
) -> ComparisonBaselines:
    """Scores the references, and the difference of each arm to the reference of its backbone.

    Args:
        cases: test cases.
        references: baselines; arms are compared with those that have an architecture.
        arms: settings and probabilities [N, K] of each repeat, by name of the arm.
        metric: name of the compared score, an overall metric of `medtl.evaluation.metrics`.
        seed: seed of the intervals.
        notes: lines on missing baselines.
    """
    labels, groups = cases.labels, cases.groups
    scores = {}
    for each in references:
        scores[each.name] = measure(labels, each.probabilities, groups, cases.classes, seed).summary
    rows = []
    for arm, repeats in arms.items():
        own = [
            (reference, probabilities)
            for settings, probabilities in repeats
            for reference in references
            if reference.architecture and reference.is_of(settings)
        ]
        if own:
            pairs = [(reference.probabilities, probabilities) for reference, probabilities in own]
            found = mean_difference(labels, pairs, groups, metric, seed)
            names = "; ".join(dict.fromkeys(reference.name for reference, _ in own))
            rows.append(
                (arm, names, found.value, found.low, found.high, found.confidence, len(own))
            )
    gains = pd.DataFrame(rows, columns=list(GAIN_COLUMNS))
    return ComparisonBaselines(tuple(references), scores, gains, tuple(notes))
