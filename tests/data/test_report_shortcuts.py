"""What the making of images gives away is found, and nothing is where there is nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medtl.data.quality import shortcuts
from medtl.data.quality.shortcuts import ALL, shortcuts_of
from medtl.data.quality.thumbnails import ImageRows, Looks

COUNT = 200


def made(**columns: object) -> tuple[ImageRows, Looks]:
    """Images of two classes and 100 patients; `columns` replace what they have in common."""
    labels = np.arange(COUNT) // 2 % 2
    common = {"path": "a/b.png", "width": 64, "height": 64, "mode": "grey", "bytes": 1000}
    values = {**common, **columns}
    frame = pd.DataFrame(values, index=range(COUNT))
    borders = np.zeros((COUNT, 4), np.float32)
    looks = Looks(np.zeros((COUNT, 64, 64), np.float16), borders, np.ones(COUNT, np.float32))
    rows = np.arange(COUNT)
    return ImageRows(frame, labels, rows // 2, rows, np.zeros((COUNT, 1, 4, 4), np.uint8)), looks


def right(images: ImageRows, probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == images.labels).mean())


def test_what_is_the_same_in_all_images_is_not_asked():
    images, looks = made()
    found = shortcuts_of(images, looks, images.patients, seed=0)
    assert all(scores is None for scores in found.probabilities.values())


@pytest.mark.parametrize(
    ("trace", "column", "values"),
    [
        ("width and height", "width", (64, 80)),
        ("aspect ratio", "height", (64, 48)),
        ("mode", "mode", ("grey", "colour")),
        ("format", "path", ("a/b.png", "a/b.c.JPG#3")),
        ("file size", "bytes", (1000, 1300)),
    ],
)
def test_each_trace_is_found(trace, column, values):
    labels = np.arange(COUNT) // 2 % 2
    images, looks = made(**{column: np.array(values)[labels]})
    found = shortcuts_of(images, looks, images.patients, seed=0)
    assert right(images, found.probabilities[trace]) == 1
    assert right(images, found.probabilities[ALL]) == 1
    assert found.probabilities["border brightness"] is None


def test_borders_are_found():
    images, looks = made()
    looks.borders[images.labels == 1, 2] = 0.3
    found = shortcuts_of(images, looks, images.patients, seed=0)
    assert right(images, found.probabilities["border brightness"]) == 1


def test_what_only_names_the_patient_gives_nothing_away():
    images, looks = made(bytes=np.random.default_rng(0).permutation(COUNT // 2).repeat(2))
    found = shortcuts_of(images, looks, images.patients, seed=0)
    assert right(images, found.probabilities["file size"]) < 0.65


def test_one_patient_of_a_class_is_too_few():
    images, looks = made(bytes=np.arange(COUNT))
    groups = np.where(images.labels == 1, -1, images.patients)
    assert shortcuts_of(images, looks, groups, seed=0) is None


def test_one_class_cannot_be_told_from_anything():
    images, looks = made(bytes=np.arange(COUNT))
    images.labels[:] = 1
    assert shortcuts_of(images, looks, images.patients, seed=0) is None


def test_of_many_images_whole_groups_are_asked(monkeypatch):
    monkeypatch.setattr(shortcuts, "MOST", 50)
    images, looks = made(bytes=np.arange(COUNT))
    found = shortcuts_of(images, looks, images.patients, seed=0)
    assert 40 <= len(found.labels) <= 60
    assert set(np.bincount(found.groups).tolist()) == {0, 2}
    assert found.probabilities[ALL].shape == (len(found.labels), 2)
