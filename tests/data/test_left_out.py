"""A data set without some labels is smaller, and otherwise the same."""

from __future__ import annotations

import numpy as np

from medtl.data.dataset import without
from medtl.data.loading import load


def test_the_others_keep_their_splits_images_and_patients(write_folder):
    whole = load(str(write_folder({"a": 10, "b": 12, "c": 14})), 5, seed=0)
    fewer = without(whole, ("b",))
    assert fewer.classes == ("a", "c")
    kept = np.flatnonzero(whole.frame["label"] != "b")
    assert fewer.frame["path"].tolist() == whole.frame["path"][kept].tolist()
    np.testing.assert_array_equal(fewer.images(np.arange(24)), whole.images(kept))
    np.testing.assert_array_equal(fewer.patients, whole.patients[kept])
    assert [fewer.classes[label] for label in fewer.labels] == fewer.frame["label"].tolist()
    for name, indices in fewer.splits.items():
        assert set(fewer.frame["split"][indices]) == {name}
    assert sum(map(len, fewer.splits.values())) == 24
    assert fewer.fingerprint != whole.fingerprint
    assert "12 samples labelled b were left out" in fewer.notes


def test_without_nothing_is_the_data_set_itself(write_folder):
    whole = load(str(write_folder({"a": 10, "b": 12})), 5, seed=0)
    assert without(whole, ()) is whole
