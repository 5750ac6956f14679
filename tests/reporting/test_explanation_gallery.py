"""The explanation gallery shows each kind, and says where there is none."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes

from medtl.evaluation.heatmap_evaluation import Gallery
from medtl.reporting.plots import image_sheets


def test_a_row_a_kind_with_each_image_beside_its_map():
    images = np.full((3, 1, 8, 8), 100, np.uint8)
    heats = np.zeros((3, 8, 8), np.float32)
    heats[1, 2, 3] = 1
    kinds = {"true positives": np.array([0, 1]), "false positives": np.array([], int),
             "false negatives": np.array([2])}  # fmt: skip
    captions = ("0.90\nill\na.png", "0.80\nill\nb.png", f"0.10\n$ill\n{'c' * 80}.png")
    gallery = Gallery("ill", kinds, images, {"Grad-CAM": heats}, captions)
    figure = image_sheets.explanation_gallery(gallery, "ill", "checked")
    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    cut = texts[14]
    assert re.fullmatch("…c{20,60}[.]png", cut)
    assert texts == [
        "true positives", "(empty map)", "0.90", "ill", "a.png", "0.80", "ill", "b.png",
        "false positives", "none",
        "false negatives", "(empty map)", "0.10", "$ill", cut,
        "heat from 0 to 1 (the most in each map): where the score of ill comes from,",
        "no proof of a finding; hottest at the border of the image: 0 of 3 maps",
    ]  # fmt: skip
    assert _rows(axes) == [4, 2]
    plain, hot = (image.get_array() for image in axes.images[2:4])
    assert (plain == 100).all()
    changed = (hot != plain).any(axis=-1)
    assert changed.sum() == 1
    assert changed[2, 3]


def _rows(axes: Axes) -> list[int]:
    """The number of pictures in each row that has any."""
    tops = [image.get_extent()[3] for image in axes.images[:-1]]  # the last is the scale
    return [tops.count(top) for top in sorted(set(tops))]


def test_several_methods_are_named_beside_one_another_on_as_many_rows_as_needed():
    images = np.full((3, 1, 8, 32), 100, np.uint8)
    heats = {name: np.full((3, 8, 32), heat, np.float32) for name, heat in (("one", 0), ("two", 1))}
    kinds = {"true positives": np.array([0, 2]), "false positives": np.array([1])}
    gallery = Gallery("ill", kinds, images, heats, ("a", "b", "c"))
    figure = image_sheets.explanation_gallery(gallery, "ill", "checked")
    (axes,) = figure.axes
    assert _rows(axes) == [3, 3, 3]
    assert [text.get_text() for text in axes.texts if text.get_text()][:-2] == [
        "true positives", "one (empty map)", "two", "a",
        "one (empty map)", "two", "c",
        "false positives", "one (empty map)", "two", "b",
    ]  # fmt: skip
    first, second = (image.get_array() for image in axes.images[1:3])
    assert (first == 100).all()
    assert (second != 100).any()
