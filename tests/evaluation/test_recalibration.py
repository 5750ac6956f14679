from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medtl.evaluation.calibration import calibration_gain, fit_temperature
from medtl.evaluation.confidence_intervals import Sampling, measure
from medtl.evaluation.scored_cases import ScoredCases
from medtl.inference.decisions import calibrated


def gain_of(
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    patients: np.ndarray,
    resamples: int = 2000,
) -> pd.DataFrame:
    sampling = Sampling.of(labels, patients, before.shape[1], 0, resamples)
    return calibration_gain(sampling, *(ScoredCases.of(labels, each) for each in (before, after)))


@pytest.fixture
def overconfident():
    """Labels [600], logits [600, 3] four times as large as the labels were drawn by, patients."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(600, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(3, p=chance) for chance in chances])
    return labels, (4 * logits).astype(np.float32), np.repeat(np.arange(300), 2).astype(str)


def test_before_and_after_are_the_errors_that_measure_gives(overconfident):
    labels, logits, patients = overconfident
    before, after = (calibrated(logits, each) for each in (1.0, fit_temperature(logits, labels)))
    gain = gain_of(labels, before, after, patients).set_index("probabilities")
    for which, probabilities in (("as trained", before), ("calibrated", after)):
        summary = measure(labels, probabilities, patients, ("a", "b", "c"), 0).summary
        for name in ("ece", "brier"):
            found = gain.loc[which, [name, f"{name}_low", f"{name}_high"]].astype(float)
            expected = summary[name]
            assert found.tolist() == pytest.approx([expected.value, expected.low, expected.high])


def test_scaling_what_was_overconfident_is_a_gain_beyond_chance(overconfident):
    labels, logits, patients = overconfident
    before, after = (calibrated(logits, each) for each in (1.0, fit_temperature(logits, labels)))
    gain = gain_of(labels, before, after, patients).set_index("probabilities")
    assert gain.loc["difference", "ece_high"] < 0
    assert gain.loc["difference", "brier_high"] < 0


def test_unknown_findings_count_nowhere():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, (80, 2)).astype(np.int8)
    labels[::5, 1] = -1
    before, after = generator.uniform(size=(2, 80, 2))
    patients = np.arange(80).astype(str)
    expected = gain_of(labels, before, after, patients, resamples=50)
    before[::5, 1] = 0.9
    found = gain_of(labels, before, after, patients, resamples=50)
    assert found.equals(expected)
