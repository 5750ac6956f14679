"""Micro and macro averages agree with scikit-learn, and stand side by side in a table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.metrics import class_metrics
from medtl.evaluation.scored_cases import ScoredCases


def made_scores(classes: int, cases: int, seed: int, decimals: int = 9):
    generator = np.random.default_rng(seed)
    labels = generator.binomial(classes - 1, 0.4, size=cases)  # some classes are rarer
    logits = np.round(generator.normal(size=(cases, classes)), decimals)
    logits[np.arange(cases), labels] += 1
    probabilities = np.exp(logits)
    decisions = generator.integers(classes, size=cases)
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True), decisions


def expected(labels, probabilities, decisions, average: str) -> dict[str, float]:
    """The average by scikit-learn; specificity is the sensitivity of the classes turned round."""
    classes = probabilities.shape[1]
    actual, decided = np.eye(classes)[labels], np.eye(classes)[decisions]
    return {
        "sensitivity": reference.recall_score(actual, decided, average=average),
        "specificity": reference.recall_score(1 - actual, 1 - decided, average=average),
        "precision": reference.precision_score(actual, decided, average=average),
        "f1": reference.f1_score(actual, decided, average=average),
        "auroc": reference.roc_auc_score(actual, probabilities, average=average),
        "auprc": reference.average_precision_score(actual, probabilities, average=average),
    }


@pytest.mark.parametrize("decimals", [9, 0], ids=["distinct", "tied"])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_both_averages_are_scikit_learns(classes: int, decimals: int):
    made = made_scores(classes, 400, seed=classes, decimals=decimals)
    labels, probabilities, decisions = made
    names = [f"class {index}" for index in range(classes)]
    found = measure(labels, probabilities, np.arange(400), names, 0, 20, decisions).averages
    assert list(found["metric"]) == [each.name for each in class_metrics()]
    for average in ("macro", "micro"):
        values = expected(*made, average)
        for _, row in found.iterrows():
            assert row[average] == pytest.approx(values[row["metric"]], abs=1e-12), row["metric"]
            assert row[f"{average}_low"] <= row[average] <= row[f"{average}_high"]


def test_weights_are_repeated_cases():
    labels, probabilities, decisions = made_scores(4, 90, seed=1, decimals=1)
    weights = np.random.default_rng(2).integers(4, size=(5, 90))
    cases = ScoredCases.of(labels, probabilities, decisions).weighted(weights.astype(float))
    found = {each.name: each.pooled(cases) for each in class_metrics()}
    for row, times in enumerate(weights):
        again = np.repeat(np.arange(90), times)
        values = expected(labels[again], probabilities[again], decisions[again], "micro")
        for name, value in values.items():
            assert found[name][row] == pytest.approx(value, abs=1e-12), name


def test_a_rare_class_that_is_never_found_weighs_more_in_the_macro_average():
    labels = np.repeat([0, 1, 2], [60, 35, 5])
    decisions = np.where(labels == 2, 0, labels)
    probabilities = np.full((100, 3), 0.1) + 0.7 * np.eye(3)[decisions]
    measures = measure(labels, probabilities, np.arange(100), ["a", "b", "c"], 0, 50)
    table = measures.averages.set_index("metric")
    assert table.loc["sensitivity", "macro"] == pytest.approx(2 / 3)
    assert table.loc["sensitivity", "micro"] == pytest.approx(0.95)
    assert measures.summary["sensitivity"].value == table.loc["sensitivity", "macro"]
