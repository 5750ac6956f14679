"""Identical images are found whatever their file is called, and travel together."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pandas as pd
import pytest

from medtl.data.duplicates import (
    check_duplicates,
    groups_that_stay_together,
    identical_under_two_patients,
)
from medtl.data.loading import load
from medtl.data.refused_data import RefusedDataError
from medtl.errors import MedtlError
from medtl.evaluation.scores_without_duplicates import duplicates_of_training
from medtl.settings.data import Reading


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Builds rows of label, split and content; paths are a, b, c, ..., patients unknown."""
    table = pd.DataFrame(rows, columns=["label", "split", "content"])
    return table.assign(path=[chr(ord("a") + number) for number in range(len(rows))], patient="")


def test_groups_follow_chains_of_patients_and_pixels():
    patients = np.array([0, 0, 1, 2, 3])
    content = np.array(["x", "y", "y", "z", "z"])
    groups = groups_that_stay_together(patients, content)
    assert len(set(groups[:3])) == 1
    assert groups[3] == groups[4] != groups[0]


def test_different_images_of_different_patients_stay_apart():
    groups = groups_that_stay_together(np.arange(4), np.array(list("abcd")))
    assert len(set(groups)) == 4


def test_two_labels_are_refused_by_name():
    rows = frame(("x", "train", "1"), ("y", "train", "1"), ("x", "train", "2"))
    with pytest.raises(MedtlError, match=r"1 pair of identical images under two labels .a and b."):
        check_duplicates("clinic", rows, "refuse")


def test_two_splits_are_refused_by_name():
    rows = frame(("x", "train", "1"), ("x", "test", "1"), ("y", "test", "2"))
    with pytest.raises(MedtlError, match=r"in two splits .a and b.*duplicates=allow"):
        check_duplicates("clinic", rows, "refuse")


def test_only_three_pairs_are_named_but_all_are_counted():
    rows = frame(*((label, "train", str(number)) for number in range(5) for label in "xy"))
    with pytest.raises(MedtlError, match=r"5 pairs .*a and b, c and d, e and f, ...") as refusal:
        check_duplicates("clinic", rows, "refuse")
    assert "g and h" not in str(refusal.value)


def test_allowed_they_are_noted():
    rows = frame(("x", "train", "1"), ("y", "test", "1"))
    assert len(check_duplicates("clinic", rows, "allow")) == 2


def test_copies_of_one_label_and_split_are_only_noted():
    rows = frame(("x", "train", "1"), ("x", "train", "1"), ("x", "train", "1"))
    assert check_duplicates("clinic", rows, "refuse") == (
        "2 images are identical to another one of the same label and split",
    )
    assert check_duplicates("clinic", rows.drop_duplicates("content"), "refuse") == ()


def test_those_of_one_label_and_split_are_counted_beside_others():
    rows = frame(*[("x", "train", "1")] * 3, ("y", "test", "1"), *[("y", "test", "2")] * 2)
    *others, last = check_duplicates("clinic", rows, "allow")
    assert len(others) == 2
    assert last == "3 images are identical to another one of the same label and split"


def test_two_patients_come_first_and_unknown_ones_are_none():
    rows = frame(*[("x", "train", number) for number in "1122"], ("y", "train", "1"))
    rows["patient"] = ["p1", "p2", "", "p2", ""]
    first, second, _ = check_duplicates("clinic", rows, "allow")
    assert first.startswith("1 pair of identical images under two patients (a and b): ")
    assert second.startswith("1 pair of identical images under two labels")
    assert identical_under_two_patients(rows) == first
    assert identical_under_two_patients(rows.assign(patient="p")) == ""


def test_a_refusal_has_all_that_is_wrong_and_nothing_else():
    rows = frame(
        *(("x", "train", str(number)) for number in range(5)),
        *(("x", "test", str(number)) for number in range(5)),
        *[("x", "train", "same")] * 2,
    )
    with pytest.raises(RefusedDataError) as refusal:
        check_duplicates("clinic", rows, "refuse")
    listed = pickle.loads(pickle.dumps(refusal.value)).table
    assert sorted(listed["path"]) == list("abcdefghij")
    assert listed.groupby("group")["split"].apply(sorted).tolist() == [["test", "train"]] * 5


def test_twins_in_training_are_told(write_folder):
    kinds = [f"{split}/{kind}" for split in ("train", "valid", "test") for kind in "ab"]
    root = write_folder(dict.fromkeys(kinds, 3))
    for number, split in enumerate(("train", "valid")):
        shutil.copy(root / split / "a" / "000.png", root / "test" / "a" / f"twin{number}.png")
    dataset = load(str(root), 16, 0, Reading(duplicates="allow"))
    test = dataset.splits["test"]
    twins = duplicates_of_training(dataset, test)
    paths = dataset.frame["path"].to_numpy()[test]
    assert sorted(paths[twins]) == ["test/a/twin0.png", "test/a/twin1.png"]
    assert duplicates_of_training(dataset, dataset.splits["train"]).all()
