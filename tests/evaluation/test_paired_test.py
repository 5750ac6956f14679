"""One-sided test of two models' AUROC: agreement with DeLong, and small-sample validity."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.evaluation.confidence_intervals import paired_difference
from medtl.evaluation.delong import delong_difference, paired_auroc_test

ALONE = np.arange(400)


def binary(count: int, seed: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws binary labels and the probabilities of two models, b with `gain` more signal."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    shared = random.normal(size=count)
    a, b = (labels * signal + shared + random.normal(size=count) for signal in (1.5, 1.5 + gain))
    return labels, *(np.stack([1 - p, p], axis=1) for p in (1 / (1 + np.exp(-s)) for s in (a, b)))


def test_of_many_independent_cases_it_is_delong_s():
    labels, a, b = binary(400, seed=1, gain=0.3)
    found = paired_auroc_test(labels, a, b, ALONE)
    expected = delong_difference(labels == 1, a[:, 1], b[:, 1])
    assert found.value == pytest.approx(expected.value)
    bounds = found.difference(0.975)
    assert bounds.low == pytest.approx(expected.low, abs=0.002)
    assert bounds.high == pytest.approx(expected.high, abs=0.002)
    assert found.confidence == pytest.approx(expected.confidence, abs=0.01)


def test_copies_of_a_case_add_nothing():
    labels, a, b = binary(60, seed=2)
    once = paired_auroc_test(labels, a, b, np.arange(60))
    five = (np.repeat(each, 5, axis=0) for each in (labels, a, b, np.arange(60)))
    copied = paired_auroc_test(*five)
    assert copied.value == pytest.approx(once.value)
    assert copied.error == pytest.approx(once.error)
    assert copied.degrees == pytest.approx(once.degrees)


@pytest.mark.parametrize("findings", [False, True])
def test_of_several_classes_it_agrees_with_the_bootstrap(findings: bool):
    random = np.random.default_rng(3)
    labels, patients = random.integers(3, size=300), np.arange(300) // 3
    signal = np.eye(3)[labels]
    a, b = (signal * each + random.normal(size=(300, 3)) for each in (1.0, 1.3))
    a, b = (np.exp(each) / np.exp(each).sum(axis=1, keepdims=True) for each in (a, b))
    if findings:
        labels = np.where(random.random((300, 3)) < 0.2, -1, signal).astype(np.int8)
    found = paired_auroc_test(labels, a, b, patients).difference(0.975)
    expected = paired_difference(labels, a, b, patients, "auroc", seed=0)
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.015)
    assert found.high == pytest.approx(expected.high, abs=0.015)


@pytest.mark.parametrize(("level", "gain"), [(0.95, 0.5), (0.975, 0.5), (0.9998, 2.0)])
def test_the_lower_bound_is_above_zero_where_the_confidence_is_above_the_level(
    level: float, gain: float
):
    above = []
    for seed in range(40):
        found = paired_auroc_test(*binary(80, seed, gain), np.arange(80))
        assert (found.difference(level).low > 0) == (found.confidence > level)
        above.append(found.confidence > level)
    assert 0 < sum(above) < 40


def test_models_that_rank_alike_are_equal():
    labels, a, _ = binary(40, seed=4)
    found = paired_auroc_test(labels, a, np.stack([1 - a[:, 1] ** 3, a[:, 1] ** 3], 1), ALONE[:40])
    bounds = found.difference(0.975)
    assert (bounds.value, bounds.low, bounds.high, bounds.confidence) == (0, 0, 0, 0.5)


def test_few_cases_that_all_agree_prove_no_more_than_their_number_can():
    """Uses 2 and 2 cases, of which one ranking in six is perfect by chance."""
    for count, proved in ((4, False), (12, True)):
        labels = np.arange(count) % 2
        right = np.stack([1 - labels, labels], axis=1).astype(float)
        found = paired_auroc_test(labels, right[:, ::-1], right, np.arange(count))
        assert found.value == 1
        assert (found.confidence > 0.975) is proved


def test_a_class_of_one_case_proves_nothing_and_one_of_none_is_left_out():
    labels = np.repeat([0, 1], [30, 1])
    worse, better = np.full((31, 2), 0.5), np.stack([1 - labels, labels], axis=1).astype(float)
    assert paired_auroc_test(labels, worse, better, np.arange(31)).confidence < 0.9
    three = np.arange(60) % 2
    random = np.random.default_rng(5)
    a, b = (np.eye(3)[three] + random.normal(size=(60, 3)) for _ in range(2))
    found = paired_auroc_test(three, a, b, np.arange(60))
    expected = paired_difference(three, a, b, np.arange(60), "auroc", seed=0, resamples=2)
    assert found.value == pytest.approx(expected.value)
    assert np.isnan(paired_auroc_test(np.zeros(9, int), a[:9], b[:9], np.arange(9)).value)


def test_equal_models_are_told_apart_no_more_often_than_is_asked():
    """Simulates 30 patients of two images each."""
    patients, labels = np.arange(60) // 2, np.arange(60) // 2 % 2
    random = np.random.default_rng(6)
    wrong = np.zeros(2)
    for _ in range(600):
        shared = random.normal(size=30)[patients] + 1.5 * labels
        a, b = (
            shared + 0.7 * random.normal(size=30)[patients] + 0.7 * random.normal(size=60)
            for _ in range(2)
        )
        found = paired_auroc_test(labels, *(np.stack([-s, s], 1) for s in (a, b)), patients)
        wrong += found.confidence > np.array([0.95, 0.975])
    assert (wrong / 600 <= [0.06, 0.035]).all()
    assert wrong[0] / 600 > 0.02
