"""Bootstrap intervals: what is drawn, what they cover, when one model is better."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medtl.errors import ParameterError
from medtl.evaluation.intervals import measure, paired_difference, resamplings
from medtl.evaluation.metrics import OVERALL, PER_CLASS


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


def test_bounds_are_those_of_resampled_data_by_scikit_learn():
    labels, probabilities = binary_scores(60, 1.0, seed=3)
    patients = np.arange(60) // 2
    measures = measure(labels, probabilities, patients, ["no", "yes"], seed=1, resamples=40)
    values = []
    for weights in np.concatenate(list(resamplings(patients, seed=1, resamples=40))):
        again = np.repeat(np.arange(60), weights.astype(int))
        values.append(roc_auc_score(labels[again], probabilities[again, 1]))
    found = measures.summary["auroc"]
    assert found.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]))
    assert [found.low, found.high] == pytest.approx(np.percentile(values, [2.5, 97.5]))


def test_chunks_do_not_change_the_draw(monkeypatch):
    patients = np.arange(50) // 3
    together = np.concatenate(list(resamplings(patients, 8, 64)))
    monkeypatch.setattr("medtl.evaluation.intervals.CHUNK_VALUES", 170)
    apart = list(resamplings(patients, 8, 64))
    assert len(apart) > 10
    np.testing.assert_array_equal(np.concatenate(apart), together)


def test_measures_are_complete_and_repeatable():
    labels, probabilities = binary_scores(80, 1.0, seed=4)
    first = measure(labels, probabilities, np.arange(80), ["no", "yes"], seed=2, resamples=100)
    again = measure(labels, probabilities, np.arange(80), ["no", "yes"], seed=2, resamples=100)
    assert first.summary == again.summary
    assert tuple(first.summary) == OVERALL
    assert list(first.per_class["class"]) == ["no", "yes"]
    assert first.per_class["cases"].sum() == 80
    for name in PER_CLASS:
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


def test_intervals_cover_the_truth():
    truth, covered = 0.7602, 0  # P(N(1, sqrt 2) > 0), the AUROC of normal scores one apart
    for seed in range(100):
        labels, probabilities = binary_scores(120, 1.0, seed=100 + seed)
        found = measure(labels, probabilities, np.arange(120), ["no", "yes"], seed, 200)
        covered += found.summary["auroc"].low <= truth <= found.summary["auroc"].high
    assert 88 <= covered <= 99


def test_a_class_of_one_patient_is_missing_from_some_resamples():
    labels, probabilities = binary_scores(40, 1.0, seed=6)
    labels[:] = 0
    labels[7] = 1
    found = measure(labels, probabilities, np.arange(40), ["no", "yes"], 0, 200).summary["auroc"]
    assert np.isfinite([found.value, found.low, found.high]).all()


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
    assert better.confidence == 1
    worse = paired_difference(labels, strong, weak, patients, "auroc", seed=0, resamples=300)
    assert worse.value == pytest.approx(-better.value)
    assert worse.confidence == 0
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
    with pytest.raises(ParameterError, match="metric=roc is not allowed: one of accuracy"):
        paired_difference(labels, probabilities, probabilities, np.arange(20), "roc", 0)
