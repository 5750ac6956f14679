"""DeLong's variance against a published example, its definition and the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import Sampling, measure, paired_difference, wilson
from medtl.evaluation.delong import (
    delong_difference,
    delong_error,
    delong_interval,
    with_delong,
)
from medtl.evaluation.scored_cases import Ranking


def two_models(cases: int, seed: int):
    generator = np.random.default_rng(seed)
    positive = generator.random(cases) < 0.4
    first = positive + 1.2 * generator.normal(size=cases)
    second = first + 0.4 * positive + 0.6 * generator.normal(size=cases)
    return positive, first, second


def as_probabilities(scores: np.ndarray) -> np.ndarray:
    chance = 1 / (1 + np.exp(-scores))
    return np.stack([1 - chance, chance], axis=1)


def test_published_example():
    # 109 CT images rated 1 to 5 (Hanley & McNeil 1982, Radiology 143:29, Table I); Stata's manual
    # (roctab) gives the area 0.8932, DeLong's standard error 0.0307 and the interval.
    normal = np.repeat([1, 2, 3, 4, 5], [33, 6, 6, 11, 2])
    abnormal = np.repeat([1, 2, 3, 4, 5], [3, 2, 2, 11, 33])
    positive = np.repeat([False, True], [len(normal), len(abnormal)])
    scores = np.concatenate([normal, abnormal])
    found = delong_interval(positive, scores)
    assert found.value == pytest.approx(0.8932, abs=5e-5)
    error = delong_error(positive, scores, np.arange(109))
    # the published interval is symmetric, 1.96 errors on either side; ours is on the logit scale
    assert error == pytest.approx((0.95339 - 0.83295) / 2 / 1.959964, abs=5e-6)
    middle, half = logit(found.value), 1.959964 * error / (found.value * (1 - found.value))
    assert logit([found.low, found.high]) == pytest.approx((middle - half, middle + half))


def test_images_of_one_patient_are_one_piece_of_evidence():
    positive, scores, _ = two_models(80, seed=5)
    copies = np.repeat(np.arange(80), 4)
    single = delong_error(positive, scores, np.arange(80))
    apart = delong_error(positive[copies], scores[copies], np.arange(320))
    assert delong_error(positive[copies], scores[copies], copies) == pytest.approx(single)
    assert apart < 0.55 * single


def test_groups_with_both_kinds_agree_with_the_jackknife():
    positive, scores, _ = two_models(300, seed=6)
    groups = np.arange(300) // 3
    found = delong_error(positive, scores + groups % 5, groups)
    sampling = Sampling.of(positive.astype(int), groups, 2, 0, 0)
    ranking = Ranking.of(positive, scores + groups % 5)
    areas = sampling.table(lambda weights: ranking.areas(weights)[0][:, None])[:, 0]
    assert found == pytest.approx(np.sqrt((sampling.blocks.moves(areas[1:]) ** 2).sum()), rel=0.03)


def test_a_flawless_area_has_a_bound_of_the_patients_behind_it():
    positive = np.arange(60) < 30
    found = delong_interval(positive, positive.astype(float))
    # Newcombe 2006: the variance of a share of 4 x 30 x 30 / 62 cases
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(wilson(1.0, 4 * 900 / 62).low)
    fewer = delong_interval(positive, positive.astype(float), np.arange(60) // 3)
    assert fewer.low < found.low


def test_difference_is_the_definition():
    positive, first, second = two_models(60, seed=0)

    def components(scores: np.ndarray):
        x, y = scores[positive][:, None], scores[~positive][None]
        beats = (x > y) + 0.5 * (x == y)
        return beats.mean(axis=1), beats.mean(axis=0)

    (x1, y1), (x2, y2) = components(first), components(second)
    covariance = np.cov(x1, x2) / positive.sum() + np.cov(y1, y2) / (~positive).sum()
    contrast = np.array([-1, 1])
    found = delong_difference(positive, first, second)
    assert found.value == pytest.approx(
        roc_auc_score(positive, second) - roc_auc_score(positive, first)
    )
    error = (found.high - found.low) / 2 / 1.959964
    assert error == pytest.approx(np.sqrt(contrast @ covariance @ contrast), rel=1e-5)


def test_the_interval_of_measure_agrees():
    positive, first, second = two_models(400, seed=1)
    labels, patients = positive.astype(int), np.arange(400)
    expected = delong_interval(positive, first)
    found = measure(labels, as_probabilities(first), patients, ["no", "yes"], 0, 100).summary[
        "auroc"
    ]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)

    expected = delong_difference(positive, first, second)
    both = as_probabilities(first), as_probabilities(second)
    found = paired_difference(labels, *both, patients, "auroc", seed=0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.005)
    assert found.confidence == pytest.approx(expected.confidence, abs=0.02)


def test_equal_models_are_neither_better():
    positive, first, _ = two_models(50, seed=2)
    assert delong_difference(positive, first, first).confidence == 0.5


def test_it_stands_beside_the_bounds_in_the_table_of_the_classes():
    positive, scores, _ = two_models(300, seed=3)
    labels, probabilities = positive.astype(int), as_probabilities(scores)
    measures = measure(labels, probabilities, np.arange(300), ["no", "yes"], 0, 400)
    table = with_delong(measures.per_class, labels, probabilities, np.arange(300))
    place = table.columns.get_loc("auroc_high")
    assert list(table.columns[place : place + 3]) == ["auroc_high", "delong_low", "delong_high"]
    expected = delong_interval(positive, scores)
    found = table.iloc[1]
    assert (found["delong_low"], found["delong_high"]) == (expected.low, expected.high)
    assert found["delong_low"] == pytest.approx(found["auroc_low"], abs=0.015)
    assert "delong_low" not in measures.per_class


def test_a_class_of_one_case_has_none_in_the_table():
    positive, scores, _ = two_models(40, seed=4)
    labels = np.where(np.arange(40) == 7, 2, positive.astype(int))
    probabilities = np.column_stack([as_probabilities(scores), np.zeros(40)])
    measures = measure(labels, probabilities, np.arange(40), ["a", "b", "c"], 0, 20)
    table = with_delong(measures.per_class, labels, probabilities, np.arange(40))
    assert np.isfinite(table["delong_low"][:2]).all()
    assert np.isnan(table["delong_low"][2])


def test_one_positive_has_no_variance():
    with pytest.raises(MedtlError, match="1 positive and 2 negative"):
        delong_interval(np.array([True, False, False]), np.arange(3.0))


def test_positives_of_one_patient_have_no_variance():
    with pytest.raises(MedtlError, match="one group has all positive"):
        delong_interval(np.arange(6) < 2, np.arange(6.0), np.array([1, 1, 2, 3, 4, 5]))
