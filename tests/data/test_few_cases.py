"""Splits with few cases of a class give a note that says what rests on them."""

from __future__ import annotations

import numpy as np

from medtl.data.few_cases import CONFORMAL, FOLDS, TEST, TRAIN, VALID, few_cases

ENDING = (
    "; the thresholds, the temperature and in_domain rest on them and are uncertain below 30 "
    "patients and 20 of each class"
)


def few(labels: np.ndarray, groups: np.ndarray, classes=("NORMAL", "PNEUMONIA"), part=VALID):
    return few_cases(labels, classes, groups, {part: np.arange(len(labels))})


def test_a_small_split_is_counted_and_a_large_one_is_not():
    labels = np.arange(16) % 2
    counted = "few to validate on: 16 images (NORMAL 8, PNEUMONIA 8)"
    assert few(labels, np.arange(16)) == (f"{counted}{ENDING}",)
    assert few(np.arange(40) % 2, np.arange(40)) == ()
    assert few_cases(labels, ("a", "b"), np.arange(16), {VALID: np.arange(0)}) == ()


def test_a_patient_of_many_images_counts_once():
    (line,) = few(np.arange(100) % 2, np.arange(100) // 10)
    assert line.startswith("few to validate on: 100 images in 10 groups of one patient or equal")
    assert few(np.arange(400) % 2, np.arange(400) // 10) == ()


def test_a_rare_class_is_named_and_a_finding_on_both_sides():
    labels = np.array([0] * 60 + [1] * 4)
    assert few(labels, np.arange(64)) == (f"few to validate on: 64 images (PNEUMONIA 4){ENDING}",)
    findings = np.zeros((64, 2), np.int8)
    findings[:30, 0], findings[:60, 1] = 1, 1
    (line,) = few(findings, np.arange(64), ("Mass", "Edema"))
    assert line.startswith("few to validate on: 64 images (no Edema 4)")


def test_each_part_says_what_rests_on_it():
    labels = np.array([0] * 60 + [1] * 19)
    rests = {
        TRAIN: "few to train on: 79 images (PNEUMONIA 19); the weights rest on them",
        TEST: "few to test on: 79 images (PNEUMONIA 19); the scores rest on them",
        CONFORMAL: "few to set the thresholds of prediction sets by: 79 images (PNEUMONIA 19); the",
        FOLDS: "few to cross-validate on: 79 images (PNEUMONIA 19); the out-of-fold scores, the",
    }
    for part, line in rests.items():
        (found,) = few(labels, np.arange(79), part=part)
        assert found.startswith(line)
        assert found.endswith("are uncertain below 20 patients of each class")
    enough = np.arange(40) % 2
    assert few_cases(enough, ("a", "b"), np.arange(40), {TRAIN: np.arange(40)}) == ()
