"""Copies that a model should not take for its own, and how well strangeness tells them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medtl.evaluation.ood_detection import (
    DomainEvaluation,
    cropped,
    detection_auroc,
    inverted,
    trimmed,
    turned,
)
from medtl.reporting.plots import robustness


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_inverted_image_has_white_for_black_and_a_missing_one_stays(kind: type):
    white = np.iinfo(kind).max
    case = np.zeros((1, 2, 1, 4, 4), kind)
    case[0, 0, 0, 1, 2] = white
    found = inverted(case)
    assert found.dtype == kind
    np.testing.assert_array_equal(found[0, 0], white - case[0, 0])
    assert not found[0, 1].any()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_cropped_image_is_the_enlarged_middle(kind: type):
    white = np.iinfo(kind).max
    images = np.zeros((2, 3, 16, 16), kind)
    images[:, :, 4:12, 4:12] = white
    assert (cropped(images) == white).all()
    assert cropped(images).dtype == kind
    across = np.broadcast_to(np.arange(16, dtype=kind), (1, 2, 1, 16, 16))
    line = cropped(across)[0, 1, 0, 5].astype(int)
    assert line.min() >= 4
    assert line.max() <= 11
    assert (np.diff(line) >= 0).all()
    across = np.broadcast_to(np.arange(40, dtype=kind), (1, 1, 40, 40))
    least, most = trimmed(across).min(), trimmed(across).max()
    assert (least, most) == (3, 36)


def test_a_turned_image_has_its_right_side_on_top():
    images = np.zeros((2, 3, 8, 8), np.uint8)
    images[..., 2, 7] = 9
    found = turned(images)
    assert (found[..., 0, 2] == 9).all()
    assert found.sum() == images.sum()


def test_how_well_they_are_told_apart_is_the_auroc_with_its_interval():
    generator = np.random.default_rng(0)
    familiar, strange = generator.normal(0, 1, 80), generator.normal(1.2, 1, 60)
    scores = np.concatenate([familiar, strange])
    expected = roc_auc_score(np.repeat([0, 1], [80, 60]), scores)
    found = detection_auroc(familiar, strange, np.arange(140), seed=0)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.2
    # an image and its copy are drawn together: what they share does not count as chance
    shared = generator.normal(0, 5, 80)
    patients = np.tile(np.arange(80), 2)
    paired = detection_auroc(shared, shared + 1, patients, seed=0)
    apart = detection_auroc(shared, shared + 1, np.arange(160), seed=0)
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low)


def test_the_picture_shows_each_set_and_the_limit():
    distances = {"wards": np.linspace(0, 1, 20), "natural": np.linspace(2, 3, 9)}
    table = pd.DataFrame({"auroc": [np.nan, 1.0], "flagged": [0.05, 1.0]})
    figure = robustness.domain_distances(distances, table)
    figure.canvas.draw()
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["wards\n5% flagged", "natural\n100% flagged, AUROC 1.000"]
    (line,) = (each for each in axes.lines if "limit" in each.get_label())
    assert line.get_xdata()[0] == 1


@pytest.mark.parametrize("name", ["wards", "labels of the second clinic"])
def test_numbers_stand_below_each_other_however_long_the_name_of_the_data_is(name: str):
    bounds = {f"{each}_{end}": 0.5 for each in ("auroc", "flagged") for end in ("low", "high")}
    names = [name, f"{name}, inverted"]
    table = pd.DataFrame(
        [{"against": each, "auroc": 0.5, "flagged": 0.25, **bounds} for each in names]
    )
    _, *lines = DomainEvaluation({}, table, ("inverted",), None).lines()
    assert len({line.index(" 0.250 (") for line in lines}) == 1
