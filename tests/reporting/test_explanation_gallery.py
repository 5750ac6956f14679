"""The explanation gallery shows each kind, and says where there is none."""

from __future__ import annotations

import numpy as np

from medtl.reporting.plots import image_sheets


def test_a_row_a_kind_with_each_image_beside_its_map():
    images = np.full((3, 1, 8, 8), 100, np.uint8)
    heats = np.zeros((3, 8, 8), np.float32)
    heats[1, 2, 3] = 1
    kinds = {"true positives": np.array([0, 1]), "false positives": np.array([], int),
             "false negatives": np.array([2])}  # fmt: skip
    captions = ["0.90, is ill", "0.80, is ill", "0.10, is $ill"]
    figure = image_sheets.explanation_gallery(
        kinds, images, {"Grad-CAM": heats}, captions, "ill", "checked"
    )
    figure.canvas.draw()
    rows = np.array(figure.axes).reshape(3, 4)
    shown = [[len(axes.images) for axes in row] for row in rows]
    assert shown == [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]
    words = [[text.get_text() for text in row[0].texts] for row in rows]
    assert words[1] == ["false positives", "none"]
    assert words[2] == ["false negatives", "0.10, is $ill"]
    plain, hot = (rows[0][place].images[0].get_array() for place in (2, 3))
    assert (plain == 100).all()
    changed = (hot != plain).any(axis=-1)
    assert changed.sum() == 1
    assert changed[2, 3]


def test_several_methods_are_named_beside_one_another_on_as_many_rows_as_needed():
    images = np.full((3, 1, 8, 32), 100, np.uint8)
    heats = {name: np.full((3, 8, 32), heat, np.float32) for name, heat in (("one", 0), ("two", 1))}
    kinds = {"true positives": np.array([0, 2]), "false positives": np.array([1])}
    figure = image_sheets.explanation_gallery(
        kinds, images, heats, ["a", "b", "c"], "ill", "checked"
    )
    rows = np.array(figure.axes).reshape(3, 3)
    words = [[[text.get_text() for text in axes.texts] for axes in row] for row in rows]
    assert words == [
        [["true positives", "a"], ["one"], ["two"]],
        [["c"], ["one"], ["two"]],
        [["false positives", "b"], ["one"], ["two"]],
    ]
    first, second = (axes.images[0].get_array() for axes in rows[0][1:])
    assert (first == 100).all()
    assert (second != 100).any()
