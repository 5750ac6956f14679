"""A gallery shows the surest right and wrong cases of a class."""

from __future__ import annotations

import numpy as np

from medtl.evaluation.example_selection import most_confident, shown_classes

LABELS = np.array([True, True, True, False, False, False, True])
DECISIONS = np.array([True, True, False, True, False, False, True])
PROBABILITIES = np.array([0.7, 0.9, 0.2, 0.6, 0.3, 0.1, 0.8])


def test_the_surest_of_each_kind_come_first():
    kinds = {
        kind: each.tolist()
        for kind, each in most_confident(LABELS, DECISIONS, PROBABILITIES, 2).items()
    }
    assert kinds == {
        "true positives": [1, 6],
        "false positives": [3],
        "false negatives": [2],
        "true negatives": [5, 4],
    }


def test_a_kind_without_cases_is_empty():
    kinds = most_confident(LABELS, LABELS, PROBABILITIES, 3)
    assert [len(each) for each in kinds.values()] == [3, 0, 0, 3]


def test_of_two_classes_the_positive_one_is_shown_and_of_several_the_frequent_ones():
    assert shown_classes(np.array([0, 0, 1]), 2, most=4) == [1]
    assert shown_classes(np.array([0, 3, 3, 2, 2, 1, 0]), 5, most=3) == [0, 2, 3]
