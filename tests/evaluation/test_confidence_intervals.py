"""Intervals: resampling and jackknife units, coverage, and model differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit, ndtri
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from medtl.errors import ParameterError
from medtl.evaluation.confidence_intervals import (
    mean_score,
    measure,
    paired_difference,
    resamplings,
    wilson,
)
from medtl.evaluation.delong import delong_interval
from medtl.evaluation.jackknife import Blocks
from medtl.evaluation.metrics import class_metrics, overall_metrics


def binary_scores(cases: int, strength: float, seed: int):
    generator = np.random.default_rng(seed)
    labels = generator.integers(2, size=cases)
    positive = 1 / (1 + np.exp(-(generator.normal(size=cases) + strength * (labels - 0.5))))
    return labels, np.stack([1 - positive, positive], axis=1)


def test_patients_are_drawn_whole():
    patients = np.array([7, 3, 7, 7, 1, 3, 9])
    weights = np.concatenate(list(resamplings(patients, seed=0, resamples=500)))
    assert weights.shape == (500, 7)
    for same in ([0, 2, 3], [1, 5]):
        assert (weights[:, same] == weights[:, same[:1]]).all()
    assert (weights[:, [0, 1, 4, 6]].sum(axis=1) == 4).all()
    assert weights[:, 0].mean() == pytest.approx(1, abs=0.15)


def test_bounds_are_those_of_the_metric_without_each_patient_by_scikit_learn():
    labels, probabilities = binary_scores(60, 1.0, seed=3)
    patients = np.arange(60) // 2
    found = measure(labels, probabilities, patients, ["no", "yes"], 1, 2).summary["auroc"]
    without = np.array(
        [
            roc_auc_score(labels[patients != each], probabilities[patients != each, 1])
            for each in range(30)
        ]
    )
    assert found.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    moves = np.sqrt(29 / 30) * (without.mean() - without)
    # strata: patients with a case of the rarer class, and those without
    rarer = int(labels.mean() < 0.5)
    has = np.array([(labels[patients == each] == rarer).any() for each in range(30)])
    parts = [(moves[has] ** 2).sum(), (moves[~has] ** 2).sum()]
    freedom = sum(parts) ** 2 / sum(
        part**2 / (count - 1) for part, count in zip(parts, (has.sum(), (~has).sum()), strict=True)
    )
    half = t(freedom).ppf(0.975) * np.sqrt(sum(parts)) / (found.value * (1 - found.value))
    assert logit([found.low, found.high]) == pytest.approx(
        (logit(found.value) - half, logit(found.value) + half)
    )


def test_chunks_do_not_change_the_draw(monkeypatch):
    patients = np.arange(50) // 3
    together = np.concatenate(list(resamplings(patients, 8, 64)))
    monkeypatch.setattr("medtl.evaluation.confidence_intervals.CHUNK_VALUES", 170)
    apart = list(resamplings(patients, 8, 64))
    assert len(apart) > 10
    np.testing.assert_array_equal(np.concatenate(apart), together)


def test_measures_are_complete_and_repeatable():
    labels, probabilities = binary_scores(80, 1.0, seed=4)
    first = measure(labels, probabilities, np.arange(80), ["no", "yes"], seed=2, resamples=100)
    again = measure(labels, probabilities, np.arange(80), ["no", "yes"], seed=2, resamples=100)
    assert first.summary == again.summary
    assert list(first.summary) == [each.name for each in overall_metrics()]
    assert list(first.per_class["class"]) == ["no", "yes"]
    assert first.per_class["cases"].sum() == 80
    for name in (each.name for each in class_metrics()):
        row = first.per_class
        assert (row[f"{name}_low"] <= row[name]).all()
        assert (row[name] <= row[f"{name}_high"]).all()


def test_images_of_one_patient_are_not_independent_evidence():
    labels, probabilities = binary_scores(60, 1.0, seed=5)
    copies = np.repeat(np.arange(60), 6)
    by_patient, by_image = (
        measure(labels[copies], probabilities[copies], patients, ["no", "yes"], 0, 400)
        for patients in (copies, np.arange(360))
    )
    width = [
        each.summary["auroc"].high - each.summary["auroc"].low for each in (by_patient, by_image)
    ]
    assert width[0] > 1.8 * width[1]


def test_intervals_cover_the_truth_of_few_patients():
    """Draws 30 patients of 1 to 5 images; percentile intervals would cover 90 % of 300."""
    random, truth, covered, differing = np.random.default_rng(0), 0.87, 0, 0
    apart = np.sqrt(2) * ndtri(truth)
    for _ in range(300):
        patients = np.repeat(np.arange(30), random.integers(1, 6, 30))
        labels = random.integers(2, size=30)[patients]
        shared, first, second = (
            np.sqrt(0.5) * (random.normal(size=30)[patients] + random.normal(size=len(patients)))
            for _ in range(3)
        )
        a, b = (
            np.sqrt(0.7) * shared + np.sqrt(0.3) * own + apart * labels for own in (first, second)
        )
        pair = [np.stack([1 - expit(each), expit(each)], axis=1) for each in (a, b)]
        found = mean_score(labels, pair[:1], patients, "auroc", 0)
        covered += found.low <= truth <= found.high
        between = paired_difference(labels, *pair, patients, "auroc", 0)
        differing += between.low > 0 or between.high < 0
        assert (between.confidence > 0.975) == (between.low > 0)
        assert (between.confidence < 0.025) == (between.high < 0)
    assert 0.93 * 300 <= covered <= 0.98 * 300
    assert differing <= 0.07 * 300


def test_the_calibration_error_of_calibrated_cases_may_be_nothing():
    """Covers the true value 0, although all resamples lie above it, in 40 draws."""
    covered = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        positive = expit(1.5 * random.normal(size=100))
        labels = (random.random(100) < positive).astype(int)
        probabilities = np.stack([1 - positive, positive], axis=1)
        found = mean_score(labels, [probabilities], np.arange(100) // 2, "ece", seed, 300)
        covered += found.low == 0
        assert found.low <= found.value <= found.high
    assert covered >= 36


def test_a_calibration_error_that_is_there_has_a_lower_bound_and_a_difference():
    labels, probabilities = binary_scores(400, 1.0, seed=11)
    sure = expit(6 * logit(probabilities))
    arguments = (np.arange(400), "ece", 0, 300)
    found = mean_score(labels, [sure], *arguments)
    assert 0.1 < found.low < found.value <= found.high
    between = paired_difference(labels, sure, probabilities, *arguments)
    assert between.high < 0
    assert between.confidence < 0.025


def test_flawless_scores_are_as_sure_as_their_patients_are_many():
    labels = np.arange(120) % 2
    probabilities = np.where(labels[:, None] == [0, 1], 0.99, 0.01)
    by_case, by_patient = (
        measure(labels, probabilities, groups, ["no", "yes"], 0, 50)
        for groups in (np.arange(120), np.arange(120) // 2 // 6 * 2 + labels)
    )
    few = by_patient.summary
    for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "sensitivity", "mcc"):
        assert (few[name].value, few[name].high) == (1, 1)
        assert 0.4 < few[name].low < by_case.summary[name].low < 1
    # 10 patients of each class: a proportion of 10 cases; 18.2 for the area
    assert few["sensitivity"].low == pytest.approx(wilson(1, 10).low)
    assert few["auroc"].low == pytest.approx(wilson(1, 4 * 100 / 22).low)
    for name in ("ece", "brier"):
        assert few[name].high > wilson(0, 20).high  # an unobserved misclassification
    assert (by_patient.per_class["auprc_low"] < 1).all()
    assert (by_patient.averages["macro_low"] < 1).all()
    other = expit(logit(probabilities) * 0.9)
    between = paired_difference(labels, probabilities, other, np.arange(120), "auroc", 0)
    assert between.low < 0 < between.high
    assert between.confidence == 0.5


def test_many_patients_are_left_out_in_blocks():
    labels, probabilities = binary_scores(1500, 1.0, seed=12)
    blocks = Blocks.of(np.arange(1500), seed=0)
    assert blocks.count == len(np.unique(blocks.block)) == 400
    found = mean_score(labels, [probabilities], np.arange(1500), "auroc", 0)
    expected = delong_interval(labels == 1, probabilities[:, 1])
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_a_class_of_one_patient_is_missing_from_some_resamples():
    labels, probabilities = binary_scores(40, 1.0, seed=6)
    labels[:] = 0
    labels[7] = 1
    found = measure(labels, probabilities, np.arange(40), ["no", "yes"], 0, 200).summary["auroc"]
    assert np.isfinite([found.value, found.low, found.high]).all()
    assert found.high - found.low > 0.7  # one group gives no variance between patients


def test_one_patient_has_no_bounds():
    labels, probabilities = binary_scores(20, 1.0, seed=7)
    found = measure(labels, probabilities, np.zeros(20), ["no", "yes"], 0, 50).summary["auroc"]
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()
    gate = paired_difference(labels, probabilities, probabilities, np.zeros(20), "auroc", 0, 50)
    assert not gate.confidence >= 0.95


def test_the_better_model_wins_and_an_equal_one_does_not():
    labels, weak = binary_scores(400, 0.5, seed=8)
    strong = weak.copy()
    strong[:, 1] = 1 / (1 + np.exp(-(np.log(weak[:, 1] / weak[:, 0]) + 1.5 * (labels - 0.5))))
    strong[:, 0] = 1 - strong[:, 1]
    patients = np.arange(400) // 2
    better = paired_difference(labels, weak, strong, patients, "auroc", seed=0, resamples=300)
    assert better.low > 0
    assert better.confidence > 0.9999
    worse = paired_difference(labels, strong, weak, patients, "auroc", seed=0, resamples=300)
    assert worse.value == pytest.approx(-better.value)
    assert worse.confidence == pytest.approx(1 - better.confidence)
    equal = paired_difference(labels, weak, weak, patients, "auroc", seed=0, resamples=300)
    assert (equal.value, equal.low, equal.high, equal.confidence) == (0, 0, 0, 0.5)


def test_pairing_is_sharper_than_two_intervals():
    labels, first = binary_scores(300, 1.0, seed=9)
    tilt = np.random.default_rng(1).normal(scale=0.05, size=300)
    second = np.clip(first[:, 1] + tilt, 0.001, 0.999)
    second = np.stack([1 - second, second], axis=1)
    patients = np.arange(300)
    paired = paired_difference(labels, first, second, patients, "auroc", seed=0, resamples=300)
    alone = measure(labels, first, patients, ["no", "yes"], 0, 300).summary["auroc"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_an_unknown_metric_is_named():
    labels, probabilities = binary_scores(20, 1.0, seed=7)
    with pytest.raises(ParameterError, match="metric=roc is not allowed: one of auroc"):
        paired_difference(labels, probabilities, probabilities, np.arange(20), "roc", 0)
