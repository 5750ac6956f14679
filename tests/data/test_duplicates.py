"""Identical images are found whatever their file is called, and travel together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medtl.data.duplicates import check_duplicates, groups_that_stay_together
from medtl.errors import MedtlError


def frame(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """Rows of label, split and content; paths are a, b, c, ..."""
    table = pd.DataFrame(rows, columns=["label", "split", "content"])
    return table.assign(path=[chr(ord("a") + number) for number in range(len(rows))])


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
