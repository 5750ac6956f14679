"""Scores at home beside those elsewhere, and whether they differ."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from medtl.evaluation.confidence_intervals import Measures, measure
from medtl.evaluation.external_validation import independent_difference, internal_and_external
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import overall_metrics
from medtl.reporting.plots import robustness


def measured(skill: float, cases: int, seed: int) -> Measures:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, cases)
    positive = 1 / (1 + np.exp(-skill * (2 * labels - 1) - generator.normal(size=cases)))
    probabilities = np.stack([1 - positive, positive], axis=1)
    return measure(labels, probabilities, np.arange(cases), ("well", "ill"), 0, 300)


def test_every_metric_stands_in_a_row_with_its_difference():
    internal, external = measured(2.0, 200, 1), measured(0.3, 150, 2)
    table = internal_and_external(internal, external).set_index("metric")
    assert list(table.index) == [each.name for each in overall_metrics()]
    row = table.loc["auroc"]
    assert row["internal"] == internal.summary["auroc"].value
    assert row["external_high"] == external.summary["auroc"].high
    assert row["difference"] == row["external"] - row["internal"]
    assert row["difference_low"] < row["difference"] < row["difference_high"] < 0


def test_the_interval_of_a_difference_holds_the_truth_as_often_as_it_says():
    """Two means of normal numbers, whose own intervals are exact."""
    generator = np.random.default_rng(0)
    errors = 0.1, 0.3
    held = 0
    for _ in range(2000):
        each = [
            Interval(value, value - 1.96 * error, value + 1.96 * error)
            for value, error in zip(generator.normal((1.0, 4.0), errors), errors, strict=True)
        ]
        difference = independent_difference(*each)
        held += difference.low <= 3.0 <= difference.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_the_picture_has_two_dots_a_metric():
    table = internal_and_external(measured(2.0, 100, 1), measured(1.0, 100, 2))
    figure = robustness.internal_and_external(table, "$clinic_1")
    assert isinstance(figure, Figure)
    internal, external = (each.lines[0].get_xdata() for each in figure.axes[0].containers)
    np.testing.assert_array_equal(internal, table["internal"])
    np.testing.assert_array_equal(external, table["external"])
    figure.canvas.draw()
