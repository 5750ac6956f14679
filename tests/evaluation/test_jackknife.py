"""Bounds of estimates and of their differences, and their degrees of freedom."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kstest

from medtl.evaluation.external_validation import independent_difference
from medtl.evaluation.jackknife import (
    Blocks,
    ByStratum,
    Estimate,
    Interval,
    by_tails,
    difference,
    evidence,
)


def estimate(value: float, moves: np.ndarray, behind: float = 20) -> Estimate:
    return Estimate(value, moves, lambda moves: math.inf, behind)


def test_an_interval_without_bounds_says_so():
    assert str(Interval(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"
    assert str(estimate(0.5, np.zeros(1)).interval) == "0.500 (no interval: too few cases)"


def test_of_different_patients_it_is_the_difference_of_independent_scores():
    random = np.random.default_rng(0)
    first = np.concatenate([random.normal(0, 0.01, 30), np.zeros(20)])
    second = np.concatenate([np.zeros(30), random.normal(0, 0.02, 20)])
    a, b = estimate(0.9, first), estimate(0.95, second)
    found, expected = difference(a, b), independent_difference(a.interval, b.interval)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_what_moves_both_widens_no_difference():
    random = np.random.default_rng(1)
    shared, own = random.normal(0, 0.01, 50), random.normal(0, 0.002, 50)
    a, b = estimate(0.8, shared), estimate(0.81, shared + own)
    paired, apart = difference(a, b), independent_difference(a.interval, b.interval)
    assert paired.high - paired.low < 0.4 * (apart.high - apart.low)
    turned = difference(b, a)
    assert (turned.low, turned.high) == pytest.approx((-paired.high, -paired.low))
    assert turned.confidence == pytest.approx(1 - paired.confidence)


@pytest.mark.parametrize("value", [0.701, 0.75, 0.78, 0.8, 0.9, 0.99])
def test_the_confidence_says_what_the_interval_says(value: float):
    moves = np.random.default_rng(2).normal(0, 0.01, 20)
    a, b = estimate(0.7, moves), estimate(value, moves[::-1])
    for found in (difference(a, b), difference(b, a)):
        assert (found.confidence > 0.975) == (found.low > 0)
        assert (found.confidence < 0.025) == (found.high < 0)


def test_of_equal_models_each_confidence_is_as_frequent():
    """Checks uniformity: 5 of 100 comparisons of equal models reach 0.95."""
    random, found = np.random.default_rng(3), []
    for _ in range(400):
        scores = random.normal(0.5, 0.3, (2, 40))
        moves = (scores - scores.mean(axis=1, keepdims=True)) / math.sqrt(40 * 39)
        a, b = (
            Estimate(float(each.mean()), own, ByStratum(np.zeros(40, int)), 40)
            for each, own in zip(scores, moves, strict=True)
        )
        found.append(difference(a, b).confidence)
    assert kstest(found, "uniform").pvalue > 0.01


def test_a_flawless_challenger_is_no_proof_of_few_patients():
    champion = estimate(0.95, np.full(16, 0.005))
    few, many = (difference(champion, estimate(1.0, np.zeros(16), n)) for n in (10, 1000))
    assert few.confidence < 0.95 < many.confidence
    assert few.low < 0 < many.low


def test_few_positives_among_many_bring_few_degrees_of_freedom():
    strata = np.repeat([1, 0], [8, 100])
    mostly = np.concatenate([np.full(8, 1.0), np.full(100, 0.01)])
    assert ByStratum(strata)(mostly) == pytest.approx(7, rel=0.01)
    assert ByStratum(strata)(np.ones(108)) > 90
    assert ByStratum(strata)(np.zeros(108)) == math.inf
    even, one = np.ones(50), np.append(np.full(49, 0.01), 1.0)
    assert by_tails(even) == 49
    assert by_tails(one) < 3


def test_a_block_is_of_the_rarest_that_its_cases_have():
    blocks = Blocks.of(np.array([5, 5, 7, 7, 9, 9]), seed=0)
    labels = np.array([0, 0, 0, 1, 0, 2])
    assert blocks.strata(labels).tolist() == [0, 1, 2]
    findings = np.array([[0, 1], [0, 1], [1, 1], [0, 0], [0, -1], [0, 0]])
    assert blocks.strata(findings).tolist() == [1, 0, 2]
    assert blocks.among(np.arange(6) > 1).strata(labels[2:]).tolist() == [-1, 1, 2]


def test_what_a_flawless_score_rests_on():
    labels, groups = np.array([0, 0, 0, 1, 1, 0]), np.array([1, 1, 2, 3, 4, 5])
    of_two = evidence(labels, groups, 2)
    assert of_two.overall["sensitivity"] == 2
    assert of_two.overall["specificity"] == 3
    assert of_two.overall["accuracy"] == 5
    assert of_two.overall["auroc"] == pytest.approx(4 * 3 * 2 / 7)
    of_three = evidence(np.array([0, 0, 1, 1, 2, 2]), groups, 3)
    assert of_three.per_class["sensitivity"].tolist() == [1, 2, 2]
    assert of_three.overall["sensitivity"] == 3
