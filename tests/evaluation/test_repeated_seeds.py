"""Spread over seeds stands beside the interval over patients."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.evaluation.confidence_intervals import mean_score
from medtl.evaluation.metrics import headline_metrics
from medtl.evaluation.repeated_seeds import over_seeds
from medtl.evaluation.scored_cases import DecidedCases


def cases(seed: int, labels: np.ndarray, groups: np.ndarray) -> DecidedCases:
    noise = np.random.default_rng(seed).normal(size=len(labels))
    positive = 1 / (1 + np.exp(-(labels - 0.5) * 1.5 - noise))
    probabilities = np.stack([1 - positive, positive], axis=1)
    return DecidedCases(labels, groups, ("no", "yes"), probabilities, probabilities.argmax(axis=1))


def test_the_interval_is_over_patients_and_the_spread_over_seeds():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    labels = (random.random(40) < 0.5).astype(int)[groups]
    repeats = [cases(seed, labels, groups) for seed in (1, 2, 3)]
    found = over_seeds((1, 2, 3), repeats, seed=0, resamples=50)
    assert list(found.table["seed"]) == [1, 2, 3]
    each = found.table["auroc"]
    assert found.means["auroc"].value == pytest.approx(each.mean())
    assert found.spreads["auroc"] == pytest.approx(each.std(ddof=1))
    probabilities = [each.probabilities for each in repeats]
    expected = mean_score(labels, probabilities, groups, "auroc", 0, 50)
    assert found.means["auroc"].low == pytest.approx(expected.low)
    assert found.means["auroc"].high == pytest.approx(expected.high)
    assert len(found.lines()) == 1 + len(headline_metrics())
    assert f"over seeds ± {found.spreads['auroc']:.3f}" in found.lines()[1]


def test_equal_models_have_no_spread():
    labels, groups = np.arange(20) % 2, np.arange(20)
    same = [cases(5, labels, groups)] * 2
    assert set(over_seeds((1, 2), same, 0, 20).spreads.values()) == {0.0}
