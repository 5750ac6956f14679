"""Folds keep patients together, cover each case once, and follow the column of a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.errors import MedtlError, ParameterError
from medtl.settings.data import Reading

READING = Reading(folds=5)


def write(path, rows, write_image, **columns):
    """Writes a CSV with an image a row; `rows` are (label, patient)."""
    for seed in range(len(rows)):
        write_image(path / f"{seed}.png", seed)
    table = pd.DataFrame(rows, columns=["label", "patient"]).assign(
        path=[f"{seed}.png" for seed in range(len(rows))], **columns
    )
    table.to_csv(path / "labels.csv", index=False)
    return str(path / "labels.csv")


@pytest.fixture
def patients(tmp_path, write_image):
    """60 patients of two images, a third of them ill."""
    labels = ["ill" if number % 3 == 0 else "normal" for number in range(60)]
    rows = [(label, f"p{number}") for number, label in enumerate(labels) for _ in range(2)]
    return lambda **columns: write(tmp_path, rows, write_image, **columns)


def test_each_case_is_tested_once_and_no_patient_is_parted(patients):
    dataset = load(patients(), 6, 0, READING)
    folds = draw_folds(dataset, 5, 0)
    pool = set(folds.pool)
    assert pool == set(dataset.splits["train"]) | set(dataset.splits["valid"])
    outs = [folds.splits(number)["test"] for number in range(5)]
    assert sorted(np.concatenate(outs)) == sorted(pool)
    for number in range(5):
        parts = folds.splits(number)
        assert set(np.concatenate(list(parts.values()))) == pool
        seen = [set(dataset.groups[each]) for each in parts.values()]
        assert sum(map(len, seen)) == len(set.union(*seen))
        assert len(parts["valid"]) == pytest.approx(0.15 * (len(pool) - len(outs[number])), abs=2)
        for indices in parts.values():
            assert np.mean(dataset.labels[indices] == 1) == pytest.approx(1 / 3, abs=0.08)
    again, other = draw_folds(dataset, 5, 0), draw_folds(dataset, 5, 1)
    assert (again.fold == folds.fold).all()
    assert (again.validating == folds.validating).all()
    assert (other.fold != folds.fold).any()
    table = folds.table()
    assert (table["fold"] == "test").sum() == len(dataset.splits["test"])


def test_the_held_out_share_is_that_of_one_training_unless_given(patients):
    place = patients()
    usual = load(place, 6, 0).splits["test"]
    assert (load(place, 6, 0, READING).splits["test"] == usual).all()
    larger = load(place, 6, 0, Reading(holdout=0.3, folds=5)).splits["test"]
    assert len(larger) == pytest.approx(36, abs=2)
    none = load(place, 6, 0, Reading(holdout=0.0, folds=5))
    assert len(none.splits["test"]) == 0
    assert len(draw_folds(none, 5, 0).pool) == 120


def test_notes_count_folds_and_say_nothing_about_a_validation_split_that_is_not_used(patients):
    dataset = load(patients(), 6, 0, READING)
    (drawn,) = (note for note in dataset.notes if "drawn" in note)
    assert drawn.startswith("test drawn by patient (folds 102, test 18")
    assert not any("few to validate" in note for note in dataset.notes)
    assert draw_folds(dataset, 5, 0).notes[0].startswith("5 folds drawn by patient (samples of")


def test_a_column_gives_the_folds(patients):
    named = [f"{chr(97 + number % 4)}" for number in range(60) for _ in range(2)]
    place = patients(**{"CV fold": named})
    plain = load(place, 6, 0)
    assert "the column fold is not used: folds=4 cross-validates by it" in plain.notes
    assert "the column CV fold is taken for the fold" in plain.notes
    dataset = load(place, 6, 0, Reading(folds=4, holdout=0.0))
    assert not any("not used" in note for note in dataset.notes)
    folds = draw_folds(dataset, 4, 0)
    assert folds.names == ("a", "b", "c", "d")
    assert folds.given
    names = dataset.frame["fold"].to_numpy()
    assert all(folds.names[number] == name for number, name in zip(folds.fold, names, strict=True))
    with pytest.raises(ParameterError, match="folds=5 is not allowed: 4: the column fold of"):
        draw_folds(dataset, 5, 0)


def test_numbered_folds_are_in_the_order_of_their_numbers(patients):
    named = [str(number % 12) for number in range(60) for _ in range(2)]
    dataset = load(patients(fold=named), 6, 0, Reading(folds=12, holdout=0.0))
    assert draw_folds(dataset, 12, 0).names == tuple(map(str, range(12)))


def test_a_patient_in_two_folds_and_a_row_without_a_fold_are_refused(patients):
    named = [str(number % 5) for number in range(120)]
    dataset = load(patients(fold=named), 6, 0, READING)
    with pytest.raises(MedtlError, match=r"patients are in more than one fold \(p0"):
        draw_folds(dataset, 5, 0)
    named = ["" if number == 7 else str(number % 5) for number in range(60) for _ in range(2)]
    dataset = load(patients(fold=named), 6, 0, Reading(folds=5, holdout=0.0))
    with pytest.raises(MedtlError, match="2 of 120 rows outside the test split have no fold"):
        draw_folds(dataset, 5, 0)


def test_too_few_patients_are_named(tmp_path, write_image):
    rows = [("normal", f"n{number}") for number in range(12)] + [("ill", "p"), ("ill", "q")]
    place = write(tmp_path, rows, write_image, split="train")
    dataset = load(write(tmp_path, rows, write_image), 6, 0, Reading(holdout=0.0, folds=20))
    assert place
    with pytest.raises(ParameterError, match="folds=20 is not allowed: at most 14, the patients"):
        draw_folds(dataset, 20, 0)
    with pytest.raises(MedtlError, match="has no image of ill, which 2 patients of all folds have"):
        draw_folds(dataset, 3, 0)


def test_a_finding_is_spread_over_folds(tmp_path, write_image):
    labels = ["A|B", "A", "B", "No Finding", "No Finding", "C|A"]
    rows = [(labels[number % 6], f"p{number}") for number in range(90)]
    dataset = load(write(tmp_path, rows, write_image), 6, 0, Reading(folds=5, holdout=0.0))
    folds = draw_folds(dataset, 5, 0)
    assert dataset.multi_label
    for number in range(5):
        out = folds.splits(number)["test"]
        assert (dataset.labels[out] == 1).sum(axis=0) == pytest.approx([9, 6, 3], abs=2)


def test_a_given_test_split_is_held_out_whatever_the_share(patients):
    split = ["test" if number % 4 == 0 else "valid" if number % 4 == 1 else "train"
             for number in range(60) for _ in range(2)]  # fmt: skip
    dataset = load(patients(split=split), 6, 0, Reading(folds=3, holdout=0.0))
    assert len(dataset.splits["test"]) == 30
    assert len(draw_folds(dataset, 3, 0).pool) == 90
    assert "holdout=0 is not used: the data has a test split" in dataset.notes
    assert dataset.fingerprint == load(patients(split=split), 6, 0).fingerprint
