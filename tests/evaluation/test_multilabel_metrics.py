"""Measures of findings: those of scikit-learn where they are known, and nothing elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from medtl.evaluation import example_selection
from medtl.evaluation.calibration import (
    finding_counts,
    fit_presence_temperature,
    operating_points,
    operating_points_at,
    presence_reliability,
)
from medtl.evaluation.confidence_intervals import measure, paired_difference
from medtl.evaluation.decision_curve import decision_curve
from medtl.evaluation.delong import delong_interval, with_delong
from medtl.evaluation.metrics import overall_metrics
from medtl.evaluation.scored_cases import DecidedCases
from medtl.inference.decisions import decide_findings, presence
from medtl.reporting.plots import classification, image_sheets

FINDINGS = ("edema", "mass", "nodule")
RANDOM = np.random.default_rng(1)
TRUTH = (RANDOM.random((120, 3)) < (0.5, 0.3, 0.15)).astype(np.int8)
LABELS = np.where(RANDOM.random((120, 3)) < 0.15, -1, TRUTH).astype(np.int8)
LOGITS = 3 * RANDOM.normal(size=(120, 3)) + 2.5 * (2 * TRUTH - 1)
PROBABILITIES = presence(LOGITS, 1.0)
DECISIONS = PROBABILITIES >= (0.6, 0.5, 0.3)
PATIENTS = np.arange(120) // 2


def known(index: int) -> tuple[np.ndarray, ...]:
    here = LABELS[:, index] >= 0
    return tuple(each[here, index] for each in (LABELS, PROBABILITIES, DECISIONS))


def test_measures_are_those_of_scikit_learn_on_what_is_known():
    found = measure(LABELS, PROBABILITIES, PATIENTS, FINDINGS, 0, 50, DECISIONS)
    expected = {
        "accuracy": lambda truth, score, said: metrics.accuracy_score(truth, said),
        "balanced_accuracy": lambda t, score, said: metrics.balanced_accuracy_score(t, said),
        "auroc": lambda truth, score, said: metrics.roc_auc_score(truth, score),
        "auprc": lambda truth, score, said: metrics.average_precision_score(truth, score),
        "f1": lambda truth, score, said: metrics.f1_score(truth, said),
        "sensitivity": lambda truth, score, said: metrics.recall_score(truth, said),
        "specificity": lambda t, score, said: metrics.recall_score(t, said, pos_label=0),
        "mcc": lambda truth, score, said: metrics.matthews_corrcoef(truth, said),
        "brier": lambda truth, score, said: metrics.brier_score_loss(truth, score),
    }
    assert {*expected, "ece"} == {each.name for each in overall_metrics()}
    for name, function in expected.items():
        each = [function(*known(index)) for index in range(3)]
        interval = found.summary[name]
        assert interval.value == pytest.approx(np.mean(each)), name
        assert interval.low < interval.value < interval.high
        if name in found.per_class:
            np.testing.assert_allclose(found.per_class[name], each)
    gaps = []
    for index in range(3):
        truth, score, _ = known(index)
        parts = pd.DataFrame({"gap": truth - score, "bin": np.ceil(score * 15)})
        gaps.append(parts.groupby("bin")["gap"].sum().abs().sum() / len(truth))
    assert found.summary["ece"].value == pytest.approx(np.mean(gaps))
    asked = LABELS >= 0
    micro = found.averages.set_index("metric")["micro"]
    pairs = (LABELS[asked], PROBABILITIES[asked])
    assert micro["auroc"] == pytest.approx(metrics.roc_auc_score(*pairs))
    assert micro["auprc"] == pytest.approx(metrics.average_precision_score(*pairs))
    assert micro["f1"] == pytest.approx(metrics.f1_score(LABELS[asked], DECISIONS[asked]))


def test_nothing_depends_on_what_is_said_of_what_is_unknown():
    unknown = LABELS < 0
    other = np.where(unknown, 1 - PROBABILITIES, PROBABILITIES)
    flipped = DECISIONS ^ unknown
    first, second = (
        measure(LABELS, scores, PATIENTS, FINDINGS, 0, 50, said)
        for scores, said in ((PROBABILITIES, DECISIONS), (other, flipped))
    )
    assert first.summary == second.summary
    pd.testing.assert_frame_equal(first.per_class, second.per_class)
    pd.testing.assert_frame_equal(first.averages, second.averages)
    logits = np.where(unknown, -LOGITS, LOGITS)
    assert fit_presence_temperature(logits, LABELS) == fit_presence_temperature(LOGITS, LABELS)
    for choose in (operating_points, lambda *pair: operating_points_at(*pair, 0.9)):
        np.testing.assert_array_equal(choose(LABELS, other), choose(LABELS, PROBABILITIES))
    difference = paired_difference(LABELS, PROBABILITIES, other, PATIENTS, "auroc", 0, 50)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    pd.testing.assert_frame_equal(
        decision_curve(LABELS, other, FINDINGS), decision_curve(LABELS, PROBABILITIES, FINDINGS)
    )


def test_a_finding_without_cases_of_both_kinds_is_left_out_of_the_mean():
    labels = LABELS.copy()
    labels[:, 1] = np.where(labels[:, 1] == 1, -1, labels[:, 1])
    found = measure(labels, PROBABILITIES, PATIENTS, FINDINGS, 0, 50, DECISIONS)
    table = found.per_class.set_index("class")
    assert np.isnan(table.loc["mass", "auroc"])
    assert found.summary["auroc"].value == pytest.approx(table["auroc"].drop("mass").mean())
    assert operating_points(labels, PROBABILITIES)[1] == 0.5


def test_the_temperature_makes_what_is_known_most_likely():
    asked = LABELS >= 0

    def loss(temperature: float) -> float:
        return metrics.log_loss(LABELS[asked], presence(LOGITS, temperature)[asked])

    fitted = fit_presence_temperature(LOGITS, LABELS)
    assert loss(fitted) < min(loss(1.02 * fitted), loss(fitted / 1.02))
    assert fit_presence_temperature(np.where(LABELS == 1, 2.0, -2.0), LABELS) == 1.0


def test_each_finding_has_the_threshold_that_is_asked_for():
    thresholds = operating_points_at(LABELS, PROBABILITIES, 0.9)
    said = decide_findings(PROBABILITIES, thresholds)
    youden = decide_findings(PROBABILITIES, operating_points(LABELS, PROBABILITIES))
    for index in range(3):
        truth, scores, _ = known(index)
        here = LABELS[:, index] >= 0
        assert metrics.recall_score(truth, said[here, index]) >= 0.9
        there = scores[truth == 1]
        assert (there > there[there >= thresholds[index]].min()).mean() < 0.9  # it is the highest
        best = max(np.subtract(*metrics.roc_curve(truth, scores)[1::-1]))
        reached = metrics.balanced_accuracy_score(truth, youden[here, index])
        assert 2 * reached - 1 == pytest.approx(best)


def test_delong_and_counts_are_of_what_is_known():
    measures = measure(LABELS, PROBABILITIES, PATIENTS, FINDINGS, 0, 50, DECISIONS)
    table = with_delong(measures.per_class, LABELS, PROBABILITIES, PATIENTS)
    counts = finding_counts(LABELS, DECISIONS, FINDINGS)
    for index in range(3):
        truth, scores, said = known(index)
        interval = delong_interval(truth == 1, scores, PATIENTS[LABELS[:, index] >= 0])
        assert table["delong_low"][index] == pytest.approx(interval.low)
        matrix = metrics.confusion_matrix(truth, said).ravel()
        names = ["rightly_not_called", "false_alarms", "missed", "found"]
        assert counts.loc[index, names].tolist() == matrix.tolist()
    assert counts["unknown"].tolist() == (LABELS < 0).sum(axis=0).tolist()


def test_every_picture_is_drawn_of_each_finding(tmp_path):
    measures = measure(LABELS, PROBABILITIES, PATIENTS, FINDINGS, 0, 50, DECISIONS)
    table = presence_reliability(LABELS, PROBABILITIES, FINDINGS)
    assert table.groupby("finding")["cases"].sum().tolist() == (LABELS >= 0).sum(axis=0).tolist()
    cases, about = example_selection.worst_finding_mistakes(LABELS, DECISIONS, PROBABILITIES, 5)
    wrong = DECISIONS[cases, about] != (LABELS[cases, about] == 1)
    assert wrong.all()
    assert (LABELS[cases, about] >= 0).all()
    decided = DecidedCases(LABELS, PATIENTS, FINDINGS, PROBABILITIES, DECISIONS)
    roc = classification.roc_curves(decided, measures.per_class)
    recall = classification.precision_recall_curves(decided, measures.per_class)
    mistakes = pd.DataFrame(
        {
            "image": "a.png",
            "finding": [FINDINGS[index] for index in about],
            "called": DECISIONS[cases, about],
            "probability": PROBABILITIES[cases, about],
        }
    )
    figures = {
        "reliability": classification.finding_reliability(
            {"as trained": table, "calibrated": table}
        ),
        "decisions": classification.finding_decisions(finding_counts(LABELS, DECISIONS, FINDINGS)),
        "mistakes": image_sheets.finding_mistakes_sheet(np.zeros((5, 1, 8, 8), np.uint8), mistakes),
    }
    for figure in (roc, recall):
        (axes,) = figure.axes
        assert len(axes.get_legend().get_texts()) == 3
    for name, figure in figures.items():
        texts = [text.get_text() for text in figure.findobj(lambda part: hasattr(part, "get_text"))]
        assert all(any(finding in text for text in texts) for finding in FINDINGS[:2]), name
