"""Unknown patients, equal names of patients, and patients in paths by a pattern."""

from __future__ import annotations

import unicodedata

import pandas as pd
import pytest

from medtl.data.loading import load
from medtl.data.patients import with_patients
from medtl.errors import ParameterError
from medtl.settings.data import Reading
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.training import TrainSettings


def read(patients: list[str], pattern: str = "", paths: list[str] | None = None):
    paths = paths or [f"{n}.png" for n in range(len(patients))]
    frame, notes = with_patients(pd.DataFrame({"path": paths, "patient": patients}), pattern)
    return frame["patient"].tolist(), notes


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "n/a", "<NA>", "Unknown", "none", "-", "?"])
def test_a_word_for_nobody_names_nobody(word):
    patients, notes = read([word, "P1", word, ""])
    assert patients == ["", "P1", "", ""]
    assert notes == (
        f"2 of 4 rows have a word for an unknown patient ({word}): each counts as a patient of its "
        "own",
    )


def test_names_that_hold_such_a_word_are_patients():
    names = ["0", "ANON00001", "Anonymous_1", "unknown-7", "Nana", "none of these"]
    assert read(names) == (names, ())


def test_whole_numbers_with_and_without_a_point_are_one_patient():
    assert read(["12", "12.0", "13.00", "13"]) == (
        ["12", "12", "13", "13"],
        ("patients written in two ways count as one: 12 and 12.0, 13 and 13.00",),
    )
    assert read(["12.0", "13.0", ""]) == (["12", "13", ""], ())
    assert read(["3.0", "3", "3.1"])[0] == ["3.0", "3", "3.1"]


def test_forms_of_unicode_are_one_patient():
    name = "Müller"
    patients, notes = read([name, unicodedata.normalize("NFD", name), f" {name}\u00a0"])
    assert patients == [name] * 3
    assert notes == (f"patients in two forms of Unicode, or with other spaces, are one: {name}",)


def test_names_that_may_be_one_are_named_and_stay_apart():
    names = ["P1", "p1", "123", "0123", "P-2", "P_02", "112", "1-12"]
    patients, notes = read(names)
    assert patients == names
    assert notes == (
        "patients whose names differ only in case, zeros or signs count as different ones: "
        "0123 and 123, P-2 and P_02, P1 and p1; give each patient one name",
    )


def test_a_pattern_reads_patients_where_none_is_given():
    paths = ["a/p1_0.png", "a/p1_1.png", "b/p2_0.png", "b/other.png"]
    patients, notes = read(["", "", "anna", ""], r"(p\d+)_", paths)
    assert patients == ["p1", "p1", "anna", ""]
    assert notes == (
        "by patient_pattern: 2 images of 1 patients; patients unknown where it does not match: 1 "
        "images (b/other.png)",
    )
    # only the first group is the patient, even if another matched
    assert read(["", ""], r"q(\d+)|(p1)", ["p1.png", "q7.png"])[0] == ["", "7"]


def test_named_groups_are_the_patient_together():
    paths = ["test/a/p1_0.png", "train/a/p1_1.png", "train/b/p1_2.png", "p2_0.png"]
    found, _ = read([""] * 4, r"(?P<part>train|test)/.*/(?P<person>p\d+)_", paths)
    assert found == ["test-p1", "train-p1", "train-p1", ""]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("p(", "regular expression, and this is none"), (r"p\d+", r"with \(...\) around the patient")],
)
def test_a_wrong_pattern_is_told_before_any_image_is_read(pattern, reason):
    for settings in (TrainSettings, EvaluateSettings):
        with pytest.raises(ParameterError, match=reason) as refusal:
            settings(data="/nowhere", patient_pattern=pattern)
        assert refusal.value.name == "patient_pattern"


def test_a_pattern_that_matches_no_path_is_refused():
    with pytest.raises(ParameterError, match=r"found in none of the 2 paths .*0.png"):
        read(["", ""], r"q(\d+)")


def test_patients_in_file_names_are_pointed_out_and_kept_together(tmp_path, write_image):
    root = tmp_path / "scans"
    for number in range(48):
        kind, person = ("bacteria", "virus")[number % 2], number // 4 * 2 + number % 2
        write_image(root / kind / f"person{person}_{kind}_{number}.png", number)
    dataset = load(str(root), 5, seed=0)
    (note,) = [note for note in dataset.notes if "patient_pattern=" in note]
    assert "paths look as if they named 24 (person0, person1, ...)" in note
    pattern = note.split("patient_pattern='")[1].rstrip("'")
    dataset = load(str(root), 5, seed=0, reading=Reading(patient_pattern=pattern))
    assert dataset.notes[0] == "by patient_pattern: 48 images of 24 patients"
    assert not any("patient_pattern=" in note for note in dataset.notes)
    assert dataset.frame.groupby("patient")["split"].nunique().max() == 1
    assert dataset.frame["patient"].nunique() == 24
