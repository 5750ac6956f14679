"""Quadratic weighted kappa of ordered classes agrees with scikit-learn and has an interval."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.evaluation.confidence_intervals import Sampling, measured
from medtl.evaluation.metrics import headline_metrics, overall_metrics
from medtl.evaluation.scored_cases import ScoredCases
from medtl.evaluation.split_evaluation import SplitPredictions, evaluate_split
from medtl.settings.data import Reading

(KAPPA,) = set(overall_metrics(ordinal=True)) - set(overall_metrics())


def graded(classes: int, cases: int, seed: int):
    """Labels, and decisions that miss by a grade or two."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=cases)
    missed = random.choice([-2, -1, 0, 0, 0, 1], size=cases)
    return labels, np.clip(labels + missed, 0, classes - 1)


def scored(labels: np.ndarray, decisions: np.ndarray, classes: int) -> ScoredCases:
    return ScoredCases.of(labels, np.full((len(labels), classes), 1 / classes), decisions)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_weighted_kappa_agrees_with_scikit_learn_under_any_weights(classes: int):
    labels, decisions = graded(classes, 120, seed=classes)
    weights = np.random.default_rng(1).integers(4, size=(6, 120))
    found = KAPPA.score(scored(labels, decisions, classes).weighted(weights.astype(float)))
    for row, times in enumerate(weights):
        again = np.repeat(np.arange(120), times)
        expected = cohen_kappa_score(labels[again], decisions[again], weights="quadratic")
        assert found[row] == pytest.approx(expected, abs=1e-12)


def test_a_miss_by_more_grades_costs_more():
    labels = np.array([0, 1, 2, 0, 1, 2])
    near, far = labels.copy(), labels.copy()
    near[0], far[0] = 1, 2
    by_one, by_two = (
        KAPPA.score(scored(labels, each, 3).weighted(np.ones((1, 6))))[0] for each in (near, far)
    )
    assert by_two < by_one < 1


def test_kappa_has_an_interval_only_where_classes_are_in_order():
    labels, decisions = graded(4, 200, seed=0)
    groups = np.arange(200) // 2
    sampling = Sampling.of(labels, groups, 4, seed=0, resamples=0)
    cases = scored(labels, decisions, 4)
    assert "kappa" not in measured(sampling, cases, "abcd").summary
    found = measured(sampling, cases, "abcd", ordinal=True).summary["kappa"]
    assert found.value == pytest.approx(cohen_kappa_score(labels, decisions, weights="quadratic"))
    assert found.low < found.value < found.high
    # the standard error of a plain bootstrap over the patients
    random, values = np.random.default_rng(2), []
    for _ in range(300):
        drawn = (random.integers(100, size=100)[:, None] * 2 + [0, 1]).ravel()
        values.append(cohen_kappa_score(labels[drawn], decisions[drawn], weights="quadratic"))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * np.std(values), rel=0.2)


@pytest.fixture(scope="module")
def grades(small_phantoms) -> Dataset:
    plain = load(str(small_phantoms), 64, seed=0)
    order = (plain.classes[2], plain.classes[0], plain.classes[1])
    return load(str(small_phantoms), 64, seed=0, reading=Reading(ordinal=",".join(order)))


def test_an_evaluation_of_grades_has_kappa_and_the_confusion_in_their_order(grades: Dataset):
    test, random = grades.splits["test"], np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), len(test))
    decisions = probabilities.argmax(axis=1)
    predictions = SplitPredictions(
        "test", test, probabilities, probabilities, probabilities, decisions
    )
    evaluation = evaluate_split(grades, predictions, seed=0)
    labels = grades.labels[test]
    expected = cohen_kappa_score(labels, decisions, weights="quadratic")
    assert evaluation.measures.summary["kappa"].value == pytest.approx(expected)
    assert f"  kappa               {expected:.3f} (" in evaluation.summary()
    confusion = evaluation.confusion()
    assert tuple(confusion["actual"]) == tuple(confusion.columns[1:]) == grades.classes
    counts = confusion_matrix(labels, decisions, labels=range(3))
    np.testing.assert_array_equal(confusion.iloc[:, 1:].to_numpy(), counts)
    assert [each.name for each in headline_metrics()] == [
        each.name for each in headline_metrics(ordinal=True) if each.name != "kappa"
    ]
