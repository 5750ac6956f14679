"""The pictures are drawn without complaint and show the numbers that they were given."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import auc, roc_auc_score

from medtl.evaluation import example_selection
from medtl.evaluation.calibration import reliability_table
from medtl.evaluation.confidence_intervals import Measures, measure
from medtl.evaluation.scored_cases import DecidedCases
from medtl.evaluation.universal_perturbations import Examples
from medtl.inference.decisions import calibrated
from medtl.reporting.plots import classification, image_sheets, robustness, training_curves, tuning

MISTAKE = ["image", "actual", "actual_probability", "decided", "decided_probability"]


def drawn(figure: Figure) -> Image.Image:
    """The figure as an image; any warning of matplotlib is an error."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file)
    return Image.open(file)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda each: hasattr(each, "get_text"))]


def scored(classes: list[str], cases: int = 120, seed: int = 0) -> tuple[DecidedCases, Measures]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(len(classes), size=cases)
    logits = generator.normal(size=(cases, len(classes)))
    logits[np.arange(cases), labels] += 1.5
    probabilities = calibrated(logits, 1.0)
    return measured(labels, probabilities, classes)


def measured(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> tuple[DecidedCases, Measures]:
    groups, decisions = np.arange(len(labels)), probabilities.argmax(axis=1)
    cases = DecidedCases(labels, groups, tuple(classes), probabilities, decisions)
    return cases, measure(labels, probabilities, groups, classes, 0, 50)


def trials() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "number": range(6),
            "state": ["complete", "pruned", "complete", "failed", "complete", "pruned"],
            "score": [0.8, 0.7, 0.9, np.nan, 0.85, np.nan],
            "lr": [1e-4, 1e-3, 1e-2, 1e-1, 1e-3, 1e-2],
            "optimizer": ["adam", "sgd", "adam", "sgd", "rmsprop", "adam"],
            "cutoff": pd.Categorical(
                ["layer4", "fc", "fc", "layer4", "layer3", "fc"],
                categories=["layer3", "layer4", "fc"],
            ),
        }
    )


def test_confusion_matrix_counts_true_rows_and_decided_columns():
    labels, decisions = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1])
    cases = DecidedCases(labels, np.arange(4), ("healthy", "ill"), np.eye(2)[decisions], decisions)
    figure = classification.confusion_matrix(cases)
    drawn(figure)
    cells = [text.get_text() for text in figure.axes[0].texts]
    assert cells == ["33%\n1", "67%\n2", "0", "100%\n1"]
    assert "2 of 4 cases decided right" in " ".join(texts(figure))


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c"], [f"c{i}" for i in range(14)]])
def test_roc_curves_enclose_the_stated_area(classes: list[str]):
    cases, measures = scored(classes)
    figure = classification.roc_curves(cases, measures.per_class)
    drawn(figure)
    shown = range(len(classes)) if len(classes) > 2 else [1]
    # The first line is the diagonal; then a curve and its dot for each class.
    curves = figure.axes[0].lines[1::2]
    assert len(curves) == len(shown)
    for index, curve in zip(shown, curves, strict=True):
        area = auc(*curve.get_data())
        expected = roc_auc_score(cases.labels == index, cases.probabilities[:, index])
        assert area == pytest.approx(expected)
        assert f"{expected:.3f}" in curve.get_label()


def test_precision_recall_curves_skip_an_absent_class():
    drawn_cases, _ = scored(["a", "b", "c"])
    labels = np.where(drawn_cases.labels == 2, 0, drawn_cases.labels)
    cases, measures = measured(labels, drawn_cases.probabilities, ["a", "b", "c"])
    figure = classification.precision_recall_curves(cases, measures.per_class)
    drawn(figure)
    assert not any("  c, n" in text for text in texts(figure))
    assert any("  b, n" in text for text in texts(figure))


def test_reliability_diagram_states_the_calibration_error():
    cases, measures = scored(["a", "b", "c"])
    figure = classification.reliability_diagram(
        {"as trained": reliability_table(cases.labels, cases.probabilities)}
    )
    drawn(figure)
    error = measures.summary["ece"].value
    assert f"as trained: calibration error {error:.3f}" in texts(figure)


def test_learning_curves_mark_the_kept_epoch():
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3, 2, 1], "valid_loss": [3, 2, 4]})
    figure = training_curves.learning_curves(
        history.assign(valid_auroc=[0.5, 0.9, 0.8]), best_epoch=2
    )
    drawn(figure)
    dots = [line.get_data() for axes in figure.axes for line in axes.lines if len(line._x) == 1]
    assert {(int(x[0]), float(y[0])) for x, y in dots} == {(2, 2.0), (2, 0.9)}


def test_learning_curves_of_one_epoch():
    history = pd.DataFrame({"epoch": [1], "train_loss": [1.0], "valid_accuracy": [0.5]})
    figure = training_curves.learning_curves(history, best_epoch=1)
    drawn(figure)
    assert all(axes.get_xticks().tolist() == [1] for axes in figure.axes)


def test_worst_mistakes_are_the_most_confident():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]])
    decisions = probabilities.argmax(axis=1)
    found = example_selection.worst_mistakes(
        np.array([1, 0, 1, 1, 0]), decisions, probabilities, count=3
    )
    np.testing.assert_array_equal(found, [1, 3, 4])


@pytest.mark.parametrize(("channels", "depth"), [(1, np.uint8), (3, np.uint8), (1, np.uint16)])
def test_mistakes_sheet_shows_images_at_their_own_depth(channels: int, depth: type):
    white = np.iinfo(depth).max
    images = np.full((5, channels, 8, 8), white // 2, dtype=depth)
    mistakes = pd.DataFrame([("a.png", "healthy", 0.2, "ill", 0.8)] * 5, columns=MISTAKE)
    figure = image_sheets.mistakes_sheet(images, mistakes)
    drawn(figure)
    shown = figure.axes[0].images[0]
    assert np.asarray(shown.get_array()).mean() == pytest.approx(0.5, abs=0.01)
    assert texts(figure).count("true: healthy 0.20") == 5
    assert texts(figure).count("decided: ill 0.80") == 5
    assert texts(figure).count("a.png") == 5


def test_no_mistakes_is_said():
    images = np.zeros((0, 1, 8, 8), np.uint8)
    figure = image_sheets.mistakes_sheet(images, pd.DataFrame([], columns=MISTAKE))
    drawn(figure)
    assert "none: every case was decided right" in texts(figure)


def test_contact_sheet():
    images = np.zeros((6, 1, 8, 8), np.uint8)
    figure = image_sheets.contact_sheet(images, list("abcdef"), "Training images", "6 of 6")
    drawn(figure)
    assert len(figure.axes[0].images) == 6


def test_search_history_keeps_the_best_so_far():
    figure = tuning.search_history(trials(), "validation AUROC")
    drawn(figure)
    (best,) = [line for line in figure.axes[0].lines if line.get_label() == "best so far"]
    np.testing.assert_allclose(best.get_ydata(), [0.8, 0.9, 0.9, 0.9])
    assert "6 trials: 3 complete, 2 pruned, 1 failed" in texts(figure)
    assert "trial 2: 0.9000" in texts(figure)


def test_search_pictures_without_a_complete_trial():
    none = trials().query("state != 'complete'")
    drawn(tuning.search_history(none, "validation AUROC"))
    drawn(tuning.parallel_coordinates(none, ["lr"], "validation AUROC"))
    drawn(tuning.hyperparameter_importances({}, "validation AUROC"))


def test_importances_are_ranked():
    figure = tuning.hyperparameter_importances({"lr": 0.2, "cutoff": 0.7}, "validation AUROC")
    drawn(figure)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.2, 0.7]


def test_parallel_coordinates_order_cutoffs_by_depth_and_lr_by_magnitude():
    figure = tuning.parallel_coordinates(trials(), ["cutoff", "lr", "optimizer"], "AUROC")
    drawn(figure)
    others, best = (lines.get_segments() for lines in figure.axes[0].collections)
    assert len(others) == 2
    np.testing.assert_allclose(best[0][:, 1], [1, 1, 0, 1])  # fc, 1e-2, adam, the best score
    rising = {round(float(line[1, 1]), 3) for line in others}
    assert rising == {0.0, 0.5}  # 1e-4 and 1e-3, evenly apart


def test_score_against_cutoff_rings_the_best():
    probe = pd.DataFrame({"cutoff": ["a", "b", "c"], "score": [0.6, 0.8, 0.7]})
    probe = probe.assign(low=probe["score"] - 0.1, high=probe["score"] + 0.1)
    tried = pd.DataFrame({"cutoff": ["c", "b", "c"], "score": [0.9, 0.5, 0.7]})
    figure = tuning.score_against_cutoff({"probe": probe, "trials": tried}, "abc", "AUROC")
    drawn(figure)
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [(float(r.get_xdata()[0]), float(r.get_ydata()[0])) for r in rings] == [
        (1, 0.8),
        (2, 0.9),
    ]
    (through,) = [line for line in figure.axes[0].lines if line.get_label() == "trials"]
    np.testing.assert_allclose(through.get_ydata(), [0.5, 0.9])


def test_many_cutoffs_are_thinned_and_the_head_stays():
    order = [f"features.denseblock4.denselayer{i}.conv2" for i in range(120)] + ["classifier"]
    probe = pd.DataFrame({"cutoff": order, "score": np.linspace(0.5, 0.9, 121)})
    figure = tuning.score_against_cutoff({"probe": probe}, order, "AUROC")
    drawn(figure)
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert len(names) <= 32
    assert names[-1] == "classifier"


def perturbed_rates() -> pd.DataFrame:
    rows = [("none", 0.0, split, 0.2) for split in ("train", "test")]
    rows += [
        (source, zeta, split, min(1.0, 0.2 + strength * zeta))
        for source, strength in (("natural", 10), ("training", 20), ("random", 0))
        for zeta in (0.04, 0.01)
        for split in ("train", "test")
    ]
    frame = pd.DataFrame(rows, columns=["source", "zeta", "split", "rate"])
    return frame.assign(low=frame["rate"] - 0.1, high=frame["rate"] + 0.05, images=30)


def test_rate_against_zeta_has_a_curve_a_source_with_its_intervals():
    figure = robustness.rate_against_zeta(perturbed_rates(), "Success rate", "L2")
    drawn(figure)
    for axes in figure.axes:
        curves = {each.get_label(): each for each in axes.containers}
        assert set(curves) == {"natural", "training", "random"}
        line, _, (bars,) = curves["training"].lines
        # in per cent, from the smallest bound to the largest, all from where nothing is added
        np.testing.assert_allclose(line.get_xydata(), [[0, 0.2], [1, 0.4], [4, 1.0]])
        np.testing.assert_allclose(bars.get_segments()[1][:, 1], [0.3, 0.45])


def test_perturbations_are_amplified_and_say_how_much():
    pattern = np.zeros((1, 4, 4), np.float32)
    pattern[0, 0] = [0.02, -0.02, 0.01, 0]
    figure = robustness.perturbations_sheet({"natural": pattern, "still": 0 * pattern}, "at most")
    drawn(figure)
    said = texts(figure)
    assert "natural: 50 times" in said
    assert "still: none" in said
    first, second = (image.get_array()[..., 0] for image in figure.axes[0].images)
    np.testing.assert_allclose(first[0], [1, 0, 0.75, 0.5], atol=0.01)
    np.testing.assert_allclose(second, 0.5, atol=0.01)


def test_perturbed_images_stand_beside_their_originals_with_what_is_said_of_both():
    images = np.stack([np.full((1, 4, 4), value, np.float32) for value in (-1, 0.9)])
    pattern = np.full((1, 4, 4), 0.2, np.float32)
    own, after = np.array([0, 1]), np.array([1, 1])
    examples = Examples(images, pattern, own, after, ("well", "ill"))
    figure = robustness.perturbed_sheet(examples, "at most")
    drawn(figure)
    captions = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert captions == ["original: well", "perturbed: ill", "original: ill", "perturbed: ill"]
    shown = [float(image.get_array()[0, 0, 0]) for image in figure.axes[0].images]
    np.testing.assert_allclose(shown, [0, 0.1, 0.95, 1], atol=0.005)


def test_class_names_are_taken_literally():
    classes = ["$x_1", r"\frac{1}", "a" * 60]
    cases, measures = scored(classes)
    drawn(classification.confusion_matrix(cases))
    drawn(classification.roc_curves(cases, measures.per_class))
