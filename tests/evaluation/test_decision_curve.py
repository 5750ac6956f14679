"""Net benefit by hand, after the formula of Vickers & Elkin 2006, and its picture."""

from __future__ import annotations

import io

import numpy as np
import pytest

from medtl.evaluation.decision_curve import decision_curve, net_benefit, treat_all
from medtl.reporting.plots import classification

POSITIVE = np.array([True, True, True, False, False, False, False, False, False, False])
SCORES = np.array([0.9, 0.6, 0.2, 0.7, 0.3, 0.2, 0.1, 0.1, 0.05, 0.0])


@pytest.mark.parametrize(
    ("threshold", "true", "false"), [(0.05, 3, 6), (0.2, 3, 3), (0.25, 2, 2), (0.5, 2, 1),
                                     (0.8, 1, 0), (0.95, 0, 0)],
)  # fmt: skip
def test_it_is_true_positives_less_false_ones_at_the_odds(threshold, true, false):
    found = net_benefit(POSITIVE, SCORES, np.array([threshold]))
    assert found[0] == pytest.approx(true / 10 - false / 10 * threshold / (1 - threshold))


def test_a_hundred_men_of_whom_a_quarter_have_cancer():
    """At 10 % one cancer found is worth nine needless biopsies.

    All treated: (25 - 75 / 9) / 100. A test that finds 22 and sends 30 others: (22 - 30 / 9) / 100.
    """
    positive = np.arange(100) < 25
    called = (np.arange(100) < 22) | ((np.arange(100) >= 25) & (np.arange(100) < 55))
    ten = np.array([0.1])
    assert treat_all(positive, ten)[0] == pytest.approx((25 - 75 / 9) / 100)
    assert net_benefit(positive, called.astype(float), ten)[0] == pytest.approx((22 - 30 / 9) / 100)


def test_treating_all_is_of_no_use_from_the_prevalence_on():
    benefit = treat_all(POSITIVE, np.array([0.29, 0.3, 0.31]))
    assert benefit[0] > 0 > benefit[2]
    assert benefit[1] == pytest.approx(0)


def test_a_flawless_model_has_the_benefit_of_the_prevalence():
    thresholds = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(net_benefit(POSITIVE, POSITIVE * 1.0, thresholds), 0.3)


def test_of_two_classes_the_positive_one_has_a_curve():
    probabilities = np.stack([1 - SCORES, SCORES], axis=1)
    table = decision_curve(POSITIVE.astype(int), probabilities, ("well", "ill"))
    assert set(table["class"]) == {"ill"}
    assert list(table["threshold"]) == [index / 100 for index in range(1, 100)]
    np.testing.assert_allclose(
        table["model"], net_benefit(POSITIVE, SCORES, table["threshold"].to_numpy())
    )
    assert (table["treat_none"] == 0).all()


def test_of_more_classes_each_that_has_cases():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), size=30)
    labels = generator.integers(3, size=30)
    table = decision_curve(labels, probabilities, ("a", "b", "c", "d"))
    assert list(table["class"].unique()) == ["a", "b", "c"]
    expected = net_benefit(labels == 1, probabilities[:, 1], np.array([0.33]))
    row = table[(table["class"] == "b") & (table["threshold"] == 0.33)]
    assert row["model"].item() == pytest.approx(expected[0])


def test_the_picture_shows_the_model_and_both_extremes():
    probabilities = np.stack([1 - SCORES, SCORES], axis=1)
    table = decision_curve(POSITIVE.astype(int), probabilities, ("well", "ill$"))
    figure = classification.decision_curves(table, 10)
    figure.savefig(io.BytesIO())
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines["ill$: by the model"].get_ydata(), table["model"])
    np.testing.assert_array_equal(lines["ill$: on all cases"].get_ydata(), table["treat_all"])
    assert set(lines["acting on no case"].get_ydata()) == {0}


@pytest.mark.parametrize(
    ("classes", "shown"),
    [(("clear", "focal", "diffuse"), {"focal", "diffuse"}), (("a", "b", "c"), {"a", "b", "c"})],
)
def test_no_curve_of_acting_on_the_absence_of_disease(classes, shown):
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(3), size=30)
    table = decision_curve(generator.integers(3, size=30), probabilities, classes)
    labels = [line.get_label() for line in classification.decision_curves(table, 30).axes[0].lines]
    assert {label.partition(":")[0] for label in labels if ":" in label} == shown
