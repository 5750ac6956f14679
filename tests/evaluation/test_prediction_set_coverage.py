"""Prediction sets hold their coverage; the measured coverage has an interval."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import rate
from medtl.evaluation.prediction_set_coverage import (
    cross_conformal_sets,
    fit_prediction_sets,
    least_patients,
    set_coverage,
)
from medtl.inference.prediction_sets import OUT_OF_FOLD, VALIDATION, PredictionSets


def drawn(count: int, random: np.random.Generator, share: float = 0.5, images: int = 1):
    """Labels, probabilities of a fair model and patients of `images` alike cases each."""
    labels = (random.random(count) < share).astype(int)
    positive = 1 / (1 + np.exp(-random.normal(2.0 * labels - 1, 1.0)))
    labels, positive = np.repeat(labels, images), np.repeat(positive, images)
    groups = np.repeat(np.arange(count), images)
    return labels, np.stack([1 - positive, positive], axis=1), groups


def test_a_threshold_is_the_order_statistic_of_split_conformal_prediction():
    labels, probabilities, groups = drawn(120, np.random.default_rng(0))
    sets = fit_prediction_sets(labels, probabilities, groups, 0.9, 0, VALIDATION)
    assert sets.by_class
    assert sets.patients == tuple(np.bincount(labels))
    for place, threshold in enumerate(sets.thresholds):
        own = np.sort(probabilities[labels == place, place])[::-1]
        assert threshold == own[int(np.ceil(0.9 * (len(own) + 1))) - 1]


def test_coverage_is_that_asked_for_within_each_class_on_average():
    random, covered = np.random.default_rng(1), []
    fresh, theirs, _ = drawn(4000, random, share=0.2)
    for seed in range(150):
        sets = fit_prediction_sets(*drawn(195, random, share=0.2), 0.9, seed, VALIDATION)
        inside = theirs >= np.array(sets.thresholds)
        covered.append([inside[fresh == place, place].mean() for place in (0, 1)])
    # between the coverage and that plus one over the number of patients
    assert np.mean(covered, axis=0) == pytest.approx(0.908, abs=0.012)


def test_a_patient_of_many_cases_counts_once():
    random, covered = np.random.default_rng(2), []
    fresh, theirs, _ = drawn(4000, random)
    for seed in range(150):
        sets = fit_prediction_sets(*drawn(40, random, images=5), 0.9, seed, VALIDATION)
        inside = theirs >= np.array(sets.thresholds)
        covered.append(inside[np.arange(len(fresh)), fresh].mean())
    assert np.mean(covered) > 0.9 - 0.01


def test_a_class_of_few_patients_makes_one_threshold_for_all():
    random = np.random.default_rng(3)
    labels, probabilities, groups = drawn(100, random, share=0.1)
    sets = fit_prediction_sets(labels, probabilities, groups, 0.9, 0, OUT_OF_FOLD)
    assert not sets.by_class
    assert sets.thresholds[0] == sets.thresholds[1]
    assert sets.patients[1] < least_patients(0.9) <= sets.patients[0]


def test_too_few_patients_are_refused_with_their_number():
    labels, probabilities, groups = drawn(19, np.random.default_rng(4), images=4)
    with pytest.raises(MedtlError, match=r"coverage=0.9 needs 20 patients .* there are 19; give"):
        fit_prediction_sets(labels, probabilities, groups, 0.9, 0, VALIDATION)


def test_fitting_leaves_the_warnings_of_the_process_as_they_are():
    before = list(warnings.filters)
    fit_prediction_sets(*drawn(60, np.random.default_rng(5)), 0.9, 0, VALIDATION)
    assert warnings.filters == before


def test_a_set_has_the_most_probable_class_and_names_it_first():
    sets = PredictionSets(0.9, (0.5, 0.3, 0.95), True, (20, 20, 20), VALIDATION)
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.31, 0.35, 0.34]])
    assert sets.members(probabilities).astype(int).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert sets.names(np.array([0.2, 0.7, 0.1]), "abc") == ["b"]
    assert sets.names(np.array([0.5, 0.5, 0.0]), "abc") == ["a", "b"]
    assert sets.names(np.array([0.5, 0.3, 0.99]), "abc") == ["c", "a", "b"]


def test_out_of_fold_cases_get_thresholds_of_the_other_folds():
    random = np.random.default_rng(6)
    labels, probabilities, groups = drawn(300, random)
    folds = random.permutation(300) % 5
    sets = cross_conformal_sets(labels, probabilities, groups, folds, 0.9, seed=0)
    out = folds == 3
    rule = fit_prediction_sets(labels[~out], probabilities[~out], groups[~out], 0.9, 0, "")
    np.testing.assert_array_equal(sets[out], rule.members(probabilities[out]))
    few = [each[:24] for each in (labels, probabilities, groups)]  # 18 in three of four folds
    assert cross_conformal_sets(*few, np.arange(24) % 4, 0.9, seed=0) is None


def test_measured_coverage_has_intervals_over_patients():
    random = np.random.default_rng(7)
    labels, probabilities, groups = drawn(80, random, images=2)
    sets = fit_prediction_sets(*drawn(200, random), 0.95, 0, VALIDATION)
    members = sets.members(probabilities)
    found = set_coverage(members, labels, groups, ("a", "b"), sets, seed=0)
    covered, sizes = members[np.arange(160), labels], members.sum(axis=1)
    assert found.summary["set_coverage"] == rate(covered, groups)
    assert found.summary["set_singletons"] == rate(sizes == 1, groups)
    size = found.summary["set_size"]
    assert size.value == sizes.mean()
    spread = sizes[::2].std(ddof=1) / np.sqrt(80)  # of patients, whose two cases are alike
    assert size.high - size.low == pytest.approx(2 * 1.99 * spread, rel=0.1)
    table = found.per_class.set_index("class")
    assert table.loc["b", "set_coverage"] == covered[labels == 1].mean()
    assert table["cases"].tolist() == np.bincount(labels).tolist()
    assert f"coverage=0.95: sets contain the class of {covered.mean():.3f} (" in found.line()
    assert found.line().endswith("validation patients of each")


def test_a_class_without_cases_has_an_empty_row():
    sets, labels = np.ones((4, 3), bool), np.array([0, 0, 1, 1])
    rule = PredictionSets(0.9, (0.1,) * 3, False, (2, 2, 0), OUT_OF_FOLD)
    found = set_coverage(sets, labels, np.arange(4), ("a", "b", "c"), rule, seed=0)
    assert "one threshold for all classes, as one has only 0 out-of-fold patients" in found.line()
    assert np.isnan(found.per_class["set_coverage"].iloc[2])
    assert found.summary["set_size"].value == 3
