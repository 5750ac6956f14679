"""Metrics agree with scikit-learn, on the cases themselves and on resamples of them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from medtl.errors import MedtlError
from medtl.evaluation.metrics import class_scores, overall_metrics, scores
from medtl.evaluation.scored_cases import ScoredCases


def made_scores(classes: int, cases: int, seed: int, rounded: int | None = None):
    """Labels and probabilities of a fair classifier; `rounded` decimals make many ties."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=cases)
    logits = generator.normal(size=(cases, classes))
    logits[np.arange(cases), labels] += 1.2
    if rounded is not None:
        logits = np.round(logits, rounded)
    probabilities = np.exp(logits)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def expected_overall(labels, probabilities, decisions):
    """The same metrics by scikit-learn (and by a loop, where it has none)."""
    classes = probabilities.shape[1]
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    gaps = [
        abs(right[inside].sum() - confidence[inside].sum())
        for low in np.arange(15) / 15
        if (inside := (confidence > low) & (confidence <= low + 1 / 15)).any()
    ]
    per_class = expected_per_class(labels, probabilities, decisions)
    chosen = (lambda values: values[1]) if classes == 2 else np.mean
    return {
        "accuracy": reference.accuracy_score(labels, decisions),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, decisions),
        "mcc": reference.matthews_corrcoef(labels, decisions),
        "ece": sum(gaps) / len(labels),
        "brier": np.square(probabilities - np.eye(classes)[labels]).sum(axis=1).mean()
        / (2 if classes == 2 else 1),
        **{
            name: chosen(per_class[name])
            for name in ("auroc", "auprc", "f1", "sensitivity", "specificity")
        },
    }


def expected_per_class(labels, probabilities, decisions):
    found = {"sensitivity": [], "specificity": [], "precision": [], "f1": []}
    found |= {"auroc": [], "auprc": []}
    for index in range(probabilities.shape[1]):
        actual, decided = labels == index, decisions == index
        found["sensitivity"].append(reference.recall_score(actual, decided))
        found["specificity"].append(reference.recall_score(~actual, ~decided))
        found["precision"].append(reference.precision_score(actual, decided))
        found["f1"].append(reference.f1_score(actual, decided))
        found["auroc"].append(reference.roc_auc_score(actual, probabilities[:, index]))
        found["auprc"].append(reference.average_precision_score(actual, probabilities[:, index]))
    return found


@pytest.mark.parametrize("rounded", [None, 0], ids=["distinct", "tied"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_every_metric_agrees_with_scikit_learn(classes: int, rounded: int | None):
    labels, probabilities = made_scores(classes, 300, seed=classes, rounded=rounded)
    decisions = np.random.default_rng(9).integers(classes, size=300)
    cases, ones = ScoredCases.of(labels, probabilities, decisions), np.ones((1, 300))
    overall, per_class = scores(cases, ones), class_scores(cases, ones)
    for name, value in expected_overall(labels, probabilities, decisions).items():
        assert overall[name][0] == pytest.approx(value, abs=1e-12), name
    for name, values in expected_per_class(labels, probabilities, decisions).items():
        np.testing.assert_allclose(per_class[name][0], values, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("rounded", [None, 0], ids=["distinct", "tied"])
@pytest.mark.parametrize("classes", [2, 3])
def test_weights_are_repeated_cases(classes: int, rounded: int | None):
    labels, probabilities = made_scores(classes, 120, seed=4, rounded=rounded)
    weights = np.random.default_rng(5).integers(4, size=(6, 120))
    found = scores(ScoredCases.of(labels, probabilities), weights.astype(float))
    for row, times in enumerate(weights):
        again = np.repeat(np.arange(120), times)
        decisions = probabilities[again].argmax(axis=1)
        expected = expected_overall(labels[again], probabilities[again], decisions)
        for name in (each.name for each in overall_metrics()):
            assert found[name][row] == pytest.approx(expected[name], abs=1e-12), name


def test_two_classes_brier_is_scikit_learns():
    labels, probabilities = made_scores(2, 100, seed=1)
    found = scores(ScoredCases.of(labels, probabilities), np.ones((1, 100)))
    expected = reference.brier_score_loss(labels, probabilities[:, 1])
    assert found["brier"][0] == pytest.approx(expected)


def test_an_absent_class_is_nan_and_left_out_of_the_means():
    labels, probabilities = made_scores(3, 90, seed=2)
    kept = labels != 1
    cases, ones = ScoredCases.of(labels[kept], probabilities[kept]), np.ones((1, kept.sum()))
    found = class_scores(cases, ones)
    for name in ("sensitivity", "precision", "f1", "auroc", "auprc"):
        values = found[name][0]
        assert np.isnan(values[1]), name
        assert not np.isnan(values[[0, 2]]).any(), name
    assert scores(cases, ones)["auroc"][0] == pytest.approx(found["auroc"][0, [0, 2]].mean())


def test_one_class_alone_has_no_ranking():
    cases = ScoredCases.of(np.zeros(3, int), np.full((3, 2), 0.5))
    found = scores(cases, np.ones((1, 3)))
    assert np.isnan(found["auroc"][0])
    assert np.isnan(class_scores(cases, np.ones((1, 3)))["specificity"][0, 0])
    assert found["accuracy"][0] == 1
    assert found["mcc"][0] == 0


def test_scores_that_are_not_numbers_are_refused():
    probabilities = np.full((3, 2), 0.5)
    probabilities[1] = np.nan
    with pytest.raises(MedtlError, match="1 of 3 cases are not numbers"):
        ScoredCases.of(np.array([0, 1, 1]), probabilities)
    with pytest.raises(MedtlError, match="no case"):
        ScoredCases.of(np.zeros(0, int), np.zeros((0, 2)))
