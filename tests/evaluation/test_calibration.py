"""Temperatures, thresholds, decisions and the reliability table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_curve

from medtl.evaluation.calibration import (
    fit_temperature,
    operating_points,
    operating_points_at,
    reliability_table,
)
from medtl.evaluation.metrics import scores
from medtl.evaluation.scored_cases import ScoredCases
from medtl.inference.decisions import calibrated, decide, decide_findings


def honest_logits(cases: int, classes: int, seed: int):
    """Logits whose softmax is the true chance of each label."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(cases, classes))
    chances = calibrated(logits, 1.0)
    labels = (generator.random((cases, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(truth: float):
    logits, labels = honest_logits(6000, 3, seed=0)
    assert fit_temperature(logits * truth, labels) == pytest.approx(truth, rel=0.06)


def test_the_temperature_is_the_best_there_is():
    logits, labels = honest_logits(400, 3, seed=1)
    found = fit_temperature(4 * logits, labels)
    losses = [
        log_loss(labels, calibrated(4 * logits, found * factor), labels=[0, 1, 2])
        for factor in (0.97, 1.0, 1.03)
    ]
    assert losses[1] == min(losses)


def test_calibration_lowers_the_error_and_keeps_the_ranking():
    logits, labels = honest_logits(3000, 3, seed=2)
    before, after = (
        scores(ScoredCases.of(labels, calibrated(4 * logits, temperature)), np.ones((1, 3000)))
        for temperature in (1.0, fit_temperature(4 * logits, labels))
    )
    assert after["ece"][0] < 0.3 * before["ece"][0]
    assert after["accuracy"][0] == before["accuracy"][0]


def test_flawless_cases_teach_no_temperature():
    logits = np.eye(3)[[0, 1, 2, 1]] * 5
    assert fit_temperature(logits, np.array([0, 1, 2, 1])) == 1.0


def test_large_logits_do_not_overflow():
    probabilities = calibrated(np.array([[1e4, -1e4, 0.0]], dtype=np.float32), 1.0)
    np.testing.assert_allclose(probabilities, [[1, 0, 0]])


def test_youden_threshold_is_scikit_learns_best():
    generator = np.random.default_rng(3)
    labels = generator.integers(2, size=200)
    positive = np.clip(np.round(0.3 * labels + generator.uniform(0, 0.7, size=200), 2), 0, 1)
    probabilities = np.stack([1 - positive, positive], axis=1)
    thresholds = operating_points(labels, probabilities)
    false, true, _ = roc_curve(labels, positive)
    decided = decide(probabilities, thresholds)
    youden = decided[labels == 1].mean() - decided[labels == 0].mean()
    assert youden == pytest.approx((true - false).max())
    assert thresholds.sum() == pytest.approx(1)


def test_a_demanded_sensitivity_is_given_and_not_more_than_needed():
    logits, labels = honest_logits(500, 2, seed=4)
    probabilities = calibrated(logits, 1.0)
    thresholds = operating_points_at(labels, probabilities, sensitivity=0.95)
    positive = labels == 1
    reached = decide(probabilities, thresholds)[positive].mean()
    assert 0.95 <= reached < 0.95 + 1.5 / positive.sum()


@pytest.mark.parametrize("sensitivity", [0.29, 0.55, 0.57, 0.9])
def test_a_demand_that_is_met_exactly_is_not_exceeded(sensitivity: float):
    positive = np.linspace(0.1, 0.9, 101)
    probabilities = np.stack([1 - positive, positive], axis=1)
    labels = np.append(0, np.ones(100, dtype=int))
    thresholds = operating_points_at(labels, probabilities, sensitivity)
    assert decide(probabilities, thresholds)[1:].sum() == round(100 * sensitivity)


def test_each_class_of_several_reaches_the_demand_by_itself():
    logits, labels = honest_logits(600, 3, seed=6)
    probabilities = calibrated(logits, 1.0)
    thresholds = operating_points_at(labels, probabilities, sensitivity=0.8)
    for index in range(3):
        reached = (probabilities[labels == index, index] >= thresholds[index]).mean()
        assert 0.8 <= reached < 0.8 + 1.5 / (labels == index).sum()


def test_every_positive_can_be_demanded():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.1, 0.9]])
    thresholds = operating_points_at(np.array([0, 0, 1, 1]), probabilities, sensitivity=1.0)
    np.testing.assert_array_equal(decide(probabilities, thresholds), [0, 1, 1, 1])


@pytest.mark.parametrize("least", [1e-7, 1e-12, 1e-300, 5e-324, 0.0])
@pytest.mark.parametrize("sensitivity", [0.75, 1.0])
def test_a_demand_is_met_by_positives_of_any_probability(least: float, sensitivity: float):
    """Includes ties and near-ties with the next case below, and probabilities of 0."""
    positive = np.array([0.9, 0.2, np.nextafter(least, 1), least, least / 2, 0.0, 0.5])
    labels = np.array([1, 1, 1, 1, 0, 0, 0])
    probabilities = np.stack([1 - positive, positive], axis=1)
    thresholds = operating_points_at(labels, probabilities, sensitivity)
    called = decide(probabilities, thresholds) == 1
    assert called[labels == 1].mean() >= sensitivity
    if least and sensitivity == 0.75:
        assert called.tolist() == [True, True, True, False, False, False, True]
    findings = operating_points_at(labels[:, None].astype(np.int8), positive[:, None], sensitivity)
    assert (decide_findings(positive[:, None], findings)[:, 0] == called).all()
    assert np.isfinite(thresholds).all()


@pytest.mark.parametrize("least", [1e-9, 0.0])
def test_each_class_of_several_is_found_at_any_probability(least: float):
    probabilities = np.array([[0.9, 0.1, 0], [1 - least, 0, least], [0.2, 0.8, 0], [0, 0, 1]])
    labels = np.array([0, 2, 1, 2])
    thresholds = operating_points_at(labels, probabilities, 1.0)
    for index in range(3):
        assert (probabilities[labels == index, index] >= thresholds[index]).all()
    assert set(decide(probabilities, thresholds)) <= {0, 1, 2}


def test_a_threshold_lies_between_two_scores():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    thresholds = operating_points(np.array([0, 0, 1, 1]), probabilities)
    np.testing.assert_allclose(thresholds, [0.4, 0.6])
    np.testing.assert_array_equal(decide(probabilities, thresholds), [0, 0, 1, 1])
    np.testing.assert_array_equal(decide(thresholds[None], thresholds), [1])


def test_more_classes_are_decided_relative_to_their_thresholds():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.2, 0.3]])
    np.testing.assert_array_equal(decide(probabilities, np.array([0.6, 0.3, 0.4])), [1, 0])


def test_an_absent_class_has_a_neutral_threshold():
    logits, labels = honest_logits(60, 3, seed=5)
    labels[labels == 2] = 0
    thresholds = operating_points(labels, calibrated(logits, 1.0))
    assert thresholds[2] == pytest.approx(1 / 3)
    assert np.isfinite(thresholds).all()


def test_the_reliability_table_holds_the_calibration_error():
    logits, labels = honest_logits(500, 3, seed=6)
    probabilities = calibrated(3 * logits, 1.0)
    table = reliability_table(labels, probabilities)
    gap = (table["accuracy"] - table["confidence"]).abs()
    expected = scores(ScoredCases.of(labels, probabilities), np.ones((1, 500)))["ece"][0]
    assert np.average(gap, weights=table["cases"]) == pytest.approx(expected)
    assert table["cases"].sum() == 500
    assert (table["confidence"].between(table["from"], table["to"])).all()
    assert ((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).all()
