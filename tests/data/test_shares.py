from __future__ import annotations

import numpy as np

from medtl.data.splits import nested_share


def drawn(patients: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Labels and patients of images: 1 to 4 a patient, classes of 60, 30 and 10 %."""
    generator = np.random.default_rng(4)
    sizes = generator.integers(1, 5, patients)
    kinds = generator.choice(3, patients, p=(0.6, 0.3, 0.1))
    return np.repeat(kinds, sizes), np.repeat(np.arange(patients), sizes)


def test_a_smaller_share_lies_within_every_larger_one_and_patients_stay_whole():
    labels, patients = drawn()
    before: set[int] = set()
    for fraction in (0.05, 0.1, 0.25, 0.5, 1.0):
        rows = nested_share(labels, patients, fraction, seed=3)
        assert before <= set(rows.tolist())
        before = set(rows.tolist())
        assert not set(patients[rows]) & set(np.delete(patients, rows))
    assert before == set(range(len(labels)))


def test_a_share_has_its_size_and_every_class_its_part():
    labels, patients = drawn(400)
    for fraction in (0.1, 0.25, 0.5):
        rows = nested_share(labels, patients, fraction, seed=0)
        counts, wanted = np.bincount(labels[rows]), fraction * np.bincount(labels)
        assert (np.abs(counts - wanted) <= 4).all(), "a patient's images at most"


def test_the_rarest_class_is_never_lost():
    labels = np.array([0] * 50 + [1])
    rows = nested_share(labels, np.arange(51), 0.05, seed=1)
    assert 1 in labels[rows]


def test_the_seed_decides_who_is_drawn():
    labels, patients = drawn()
    draws = [nested_share(labels, patients, 0.3, seed).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
