"""Validation splits that are too small give a note."""

from __future__ import annotations

import numpy as np

from medtl.data.splits import few_to_validate

ENDING = (
    "; the thresholds, the temperature and in_domain rest on them and are uncertain below 30 "
    "patients and 10 of each class"
)


def few(labels: np.ndarray, groups: np.ndarray, classes=("NORMAL", "PNEUMONIA")):
    return few_to_validate(labels, classes, groups, np.arange(len(labels)))


def test_a_small_split_is_counted_and_a_large_one_is_not():
    labels = np.arange(16) % 2
    counted = "few to validate on: 16 images (NORMAL 8, PNEUMONIA 8)"
    assert few(labels, np.arange(16)) == (f"{counted}{ENDING}",)
    assert few(np.arange(30) % 2, np.arange(30)) == ()
    assert few_to_validate(labels, ("a", "b"), np.arange(16), np.arange(0)) == ()


def test_a_patient_of_many_images_counts_once():
    (line,) = few(np.arange(100) % 2, np.arange(100) // 10)
    assert line.startswith("few to validate on: 100 images in 10 groups of one patient or equal")
    assert few(np.arange(400) % 2, np.arange(400) // 10) == ()


def test_a_rare_class_is_named_and_a_finding_on_both_sides():
    labels = np.array([0] * 60 + [1] * 4)
    assert few(labels, np.arange(64)) == (f"few to validate on: 64 images (PNEUMONIA 4){ENDING}",)
    findings = np.zeros((64, 2), np.int8)
    findings[:20, 0], findings[:60, 1] = 1, 1
    (line,) = few(findings, np.arange(64), ("Mass", "Edema"))
    assert line.startswith("few to validate on: 64 images (no Edema 4)")
