"""Splits keep patients whole, classes in proportion, and what the user has given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.data.manifest import Table
from medtl.data.splits import SPLITS, with_splits
from medtl.errors import MedtlError


def table(labels, patients=None, splits=None) -> Table:
    count = len(labels)
    frame = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(count)],
            "label": list(labels),
            "patient": list(patients) if patients is not None else [""] * count,
            "split": list(splits) if splits is not None else [""] * count,
        }
    )
    return Table("clinic", Path("."), frame, tuple(sorted(set(labels))))


def many(seed: int = 0) -> Table:
    """200 patients of one to six images, three classes of unequal size, labels mixed a little."""
    random = np.random.default_rng(seed)
    labels, patients = [], []
    for patient in range(200):
        own = random.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1])
        for _ in range(random.integers(1, 7)):
            labels.append(random.choice(["a", "b", "c"]) if random.random() < 0.1 else own)
            patients.append(f"p{patient}")
    return table(labels, patients)


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_whole_and_classes_in_proportion(seed):
    frame = with_splits(many(seed), seed).frame
    assert frame.groupby("patient")["split"].nunique().max() == 1
    shares = pd.crosstab(frame["label"], frame["split"], normalize="index")
    assert (shares["test"] - 0.15).abs().max() < 0.04
    assert (shares["valid"] - 0.15).abs().max() < 0.04


def test_large_patients_are_not_preferred():
    images = many().frame.groupby("patient").size()
    means = []
    for seed in range(20):
        frame = with_splits(many(), seed).frame
        means.append(frame[frame["split"] == "test"].groupby("patient").size().mean())
    assert abs(np.mean(means) - images.mean()) < 0.5


def test_the_seed_decides():
    first, again, other = (with_splits(many(), seed).frame["split"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_unknown_patients_stand_alone():
    frame = with_splits(table(["a"] * 40 + ["b"] * 20), 0).frame
    counts = pd.crosstab(frame["label"], frame["split"])
    assert counts.loc["a"].to_dict() == {"test": 6, "train": 28, "valid": 6}
    assert counts.loc["b"].to_dict() == {"test": 3, "train": 14, "valid": 3}


def test_a_class_of_three_reaches_every_split():
    frame = with_splits(table(["a"] * 30 + ["b"] * 3), 0).frame
    assert set(frame[frame["label"] == "b"]["split"]) == set(SPLITS)


def test_given_splits_stay_and_valid_is_carved_from_train():
    given = many()
    test = given.frame["patient"].str.endswith("7")
    splits = np.where(test, "test", "train")
    frame = with_splits(table(given.frame["label"], given.frame["patient"], splits), 0).frame
    assert (frame["split"][test] == "test").all()
    assert (frame["split"][~test] != "test").all()
    assert 0.12 < (frame["split"] == "valid").mean() < 0.18
    assert frame.groupby("patient")["split"].nunique().max() == 1


def test_complete_splits_are_not_touched():
    splits = ["train", "train", "valid", "test"] * 2
    result = with_splits(table(["a"] * 4 + ["b"] * 4, splits=splits), 0)
    assert result.frame["split"].tolist() == splits


def test_rows_without_a_split_can_be_drawn_into_those_that_are_missing():
    splits = ["test"] * 4 + [""] * 16
    frame = with_splits(table(["a", "b"] * 10, splits=splits), 0).frame
    assert (frame["split"][:4] == "test").all()
    assert set(frame["split"][4:]) == {"train", "valid"}


def test_data_without_train_is_left_for_evaluation():
    frame = with_splits(table(["a", "a", "b", "b"], splits=["test"] * 4), 0).frame
    assert set(frame["split"]) == {"test"}


def test_shared_patients_are_named():
    splits = ["train", "test"] * 4 + ["valid", "train"]
    shared = table(["a", "b"] * 5, ["p1", "p1", "p2", "p2", "p3", "p3", "p4", "p4", "", ""], splits)
    with pytest.raises(MedtlError) as refusal:
        with_splits(shared, 0)
    assert "4 patients are in more than one split: p1 (test, train), p2" in str(refusal.value)
    assert "p4" not in str(refusal.value)
    assert refusal.value.listing == "crossing_patients"
    listed = refusal.value.table
    assert listed["patient"].tolist() == ["p1", "p1", "p2", "p2", "p3", "p3", "p4", "p4"]
    assert listed["split"].tolist() == ["test", "train"] * 4
    assert listed["path"].tolist()[:2] == ["1.png", "0.png"]


def test_a_split_without_a_class_is_refused():
    with pytest.raises(MedtlError, match="the train split has no image of class b"):
        with_splits(table(["a"] * 10 + ["b"] * 2), 0)
    given = table(["a", "b", "a", "b", "a"], splits=["train", "train", "valid", "valid", "test"])
    with pytest.raises(MedtlError, match="the test split has no image of class b"):
        with_splits(given, 0)


def test_groups_stay_together():
    groups = np.repeat(np.arange(30), 2)
    frame = with_splits(table(["a"] * 30 + ["b"] * 30), 0, groups).frame
    assert frame.groupby(groups)["split"].nunique().max() == 1
