"""Labels of other data are put in the model's classes, and its answers in those labels."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.errors import ParameterError
from medtl.evaluation.external_validation import ClassMapping
from medtl.inference.decisions import decide

CLASSES = ("normal", "bacteria", "virus", "tuberculosis")
OWN = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6], [0.2, 0.25, 0.5, 0.05]])
THRESHOLDS = np.array([0.25, 0.25, 0.25, 0.25])


def test_probabilities_of_classes_that_mean_one_label_are_added():
    asked = {"healthy": ("normal",), "ill": ("bacteria", "virus", "tuberculosis")}
    mapping = ClassMapping.of(asked, ("healthy", "ill"), CLASSES)
    np.testing.assert_allclose(mapping.probabilities(OWN), [[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]])
    # what the model decides for is decided, not what is the more probable when added
    assert mapping.decisions(OWN, THRESHOLDS).tolist() == [0, 1, 1]


def test_a_class_that_means_nothing_there_is_shared_out():
    asked = {"healthy": ("normal",), "pneumonia": ("bacteria", "virus")}
    mapping = ClassMapping.of(asked, ("healthy", "pneumonia"), CLASSES)
    found = mapping.probabilities(OWN)
    np.testing.assert_allclose(found, [[4 / 9, 5 / 9], [1 / 4, 3 / 4], [4 / 19, 15 / 19]])
    # the second case is tuberculosis to the model; of what is left, virus is next
    assert mapping.decisions(OWN, THRESHOLDS).tolist() == [0, 1, 1]
    assert mapping.labels_of_classes(np.array([0, 1, 2, 3])).tolist() == [0, 1, 1, -1]
    certain = np.array([[0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(mapping.probabilities(certain), [[0.5, 0.5]])


def test_labels_are_in_the_order_of_the_data_and_some_are_left_out():
    asked = {"other": (), "b": ("virus",)}
    mapping = ClassMapping.of(asked, ("b", "normal", "other"), CLASSES)
    assert (mapping.labels, mapping.dropped) == (("b", "normal"), ("other",))
    np.testing.assert_allclose(mapping.probabilities(OWN)[0], [1 / 3, 2 / 3])


def test_the_same_classes_change_nothing_to_the_bit():
    mapping = ClassMapping.same(CLASSES)
    np.testing.assert_array_equal(mapping.probabilities(OWN), OWN)
    thresholds = np.array([0.6, 0.2, 0.3, 0.5])
    expected = decide(OWN, thresholds)
    np.testing.assert_array_equal(mapping.decisions(OWN, thresholds), expected)


def test_two_classes_are_decided_at_the_threshold_whatever_the_order_of_labels():
    own = np.array([[0.75, 0.25], [0.65, 0.35]])
    asked = {"a": ("ill",), "z": ("well",)}
    mapping = ClassMapping.of(asked, ("a", "z"), ("well", "ill"))
    assert mapping.decisions(own, np.array([0.7, 0.3])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"healthy": ("normal",)}, "mapping=pneumonia, tb is not allowed: say which"),
        ({"sick": ("virus",)}, "sick is not allowed: before = a label of the data: healthy"),
        ({"healthy": ("norm",)}, "norm is not allowed: after = a class of the model: normal"),
        (
            {"healthy": ("normal",), "pneumonia": ("virus",), "tb": ("virus",)},
            "virus is not allowed: it means one label, not pneumonia and tb",
        ),
        ({"healthy": ("normal",), "pneumonia": (), "tb": ()}, "at least two labels"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(asked, said):
    with pytest.raises(ParameterError) as refused:
        ClassMapping.of(asked, ("healthy", "pneumonia", "tb"), CLASSES)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
