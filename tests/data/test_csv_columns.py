"""CSV columns: case-insensitive and similar names, and notes on unused ones."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medtl.data.loading import load
from medtl.data.sources.csv_columns import RESERVED, in_known_columns
from medtl.errors import MedtlError

PATIENTS = ["p1", "p1", "p2", "p3"]
SPLITS = ["train", "Train", "val", "test"]


def read(**columns: list[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    rows = {"path": ["a.png", "b.png", "c.png", "d.png"], "label": ["x", "x", "y", "y"]}
    return in_known_columns(Path("labels.csv"), pd.DataFrame(rows | columns))


@pytest.mark.parametrize("name", ["Patient", "PATIENT"])
def test_columns_are_known_in_any_case(name):
    frame, notes = read(**{name: PATIENTS, "Split": SPLITS})
    assert frame["patient"].tolist() == PATIENTS
    assert frame["split"].tolist() == SPLITS
    assert notes == ()


@pytest.mark.parametrize(
    "name",
    ["patient_id", "PatientID", "Patient ID", "Patient #", "subject_id", "Subject", "participant",
     "person-no", "MRN", "id_patient", "Anonymized Patient ID"],
)  # fmt: skip
def test_one_near_name_is_taken_for_the_patient_and_said(name):
    frame, notes = read(**{name: PATIENTS})
    assert frame["patient"].tolist() == PATIENTS
    assert name not in frame
    assert notes == (f"the column {name} is taken for the patient",)


@pytest.mark.parametrize("name", ["Patient Age", "patient_sex", "patients_count", "inpatient"])
def test_what_is_known_of_a_patient_is_not_the_patient(name):
    frame, notes = read(**{name: PATIENTS})
    assert set(frame["patient"]) == {""}
    assert name in frame
    assert notes == ()


def test_two_near_names_are_refused_unless_they_say_the_same():
    other = ["s1", "s2", "s2", "s2"]
    with pytest.raises(
        MedtlError, match=r"columns patient_id and subject_id.*right one to patient"
    ):
        read(patient_id=PATIENTS, subject_id=other)
    frame, notes = read(patient_id=PATIENTS, patient_name=["A", "A", "B", "C"])
    assert frame["patient"].tolist() == PATIENTS
    assert notes[1] == ("the column patient_name is not used: it groups images as patient_id does")
    frame, notes = read(patient=PATIENTS, subject_id=other)
    assert frame["patient"].tolist() == PATIENTS
    assert notes == ("the column subject_id is not used: the patient is the column patient",)


@pytest.mark.parametrize("names", [("patient", "Patient"), ("Label", "label"), ("SPLIT", "Split")])
def test_one_column_in_two_spellings_is_refused(names):
    with pytest.raises(MedtlError, match=f"has the columns .*{names[0]}.*: keep one"):
        read(**dict.fromkeys(names, PATIENTS))


def test_a_case_or_lesion_stands_in_for_the_patient():
    frame, notes = read(lesion_id=PATIENTS)
    assert frame["patient"].tolist() == PATIENTS
    assert notes == ("no column patient: images of one lesion_id count as one patient",)
    frame, notes = read(lesion_id=PATIENTS, exam_id=["e", "e", "f", "f"])
    assert set(frame["patient"]) == {""}
    assert notes == (
        "no column patient: rename the one of lesion_id, exam_id that tells patients apart",
    )
    assert read(case_id=["1", "2", "3", "4"])[1] == ()


@pytest.mark.parametrize("name", ["set", "Partition", "usage", "fold"])
def test_a_column_of_splits_is_the_split_whatever_it_is_called(name):
    frame, notes = read(**{name: SPLITS})
    assert frame["split"].tolist() == SPLITS
    assert notes == (f"the column {name} is taken for the split",)
    frame, notes = read(**{name: SPLITS, "split": SPLITS})
    assert notes == (f"the column {name} is not used: the split is the column split",)
    assert "fold" not in frame


def test_two_columns_of_splits_are_refused():
    with pytest.raises(MedtlError, match="columns set and usage, of which each may be the split"):
        read(set=SPLITS, usage=SPLITS)


def test_columns_of_folds_are_found_by_their_names():
    folds = ["0", "1 ", "0", "1"]
    frame, notes = read(kfold=folds)
    assert frame["fold"].tolist() == ["0", "1", "0", "1"]
    assert notes == ("the column kfold is taken for the fold",)
    frame, notes = read(Fold=folds, cv_fold=folds[::-1])
    assert frame["fold"].tolist() == ["0", "1", "0", "1"]
    assert notes[-1] == "the column cv_fold is not used: the fold is the column Fold"
    frame, notes = read(kfold=folds, cvfold=folds)
    assert "fold" not in frame
    assert notes == ("the columns kfold, cvfold are not used: rename the one of the folds to fold",)


def test_a_set_that_is_no_split_is_not_used_in_silence():
    frame, notes = read(set=["A", "A", "B", "B"], fold=["0", "1", "0", "1"])
    assert set(frame["split"]) == {""}
    assert frame["fold"].tolist() == ["0", "1", "0", "1"]
    assert notes == (
        "the column set is not used: as a split its values (A, B) would have to be train, valid "
        "or test",
    )


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        (
            ["path", "diagnosis"],
            "column label; it has path, diagnosis; if that is right, pass columns=label:diagnosis",
        ),
        (
            ["Image Path", "Label"],
            "it has Image Path, label; if that is right, pass columns=path:Image Path$",
        ),
        (["filename", "class"], "pass columns=path:filename,label:class$"),
        (["path", "y"], "lacks the column label; it has path, y$"),
    ],
)
def test_a_needed_column_by_another_name_is_pointed_out(columns, hint):
    with pytest.raises(MedtlError, match=hint):
        in_known_columns(Path("labels.csv"), pd.DataFrame([["a", "b"]], columns=columns))


def test_modality_alone_in_capitals_is_a_column_of_the_user():
    frame, notes = read(Modality=["DX"] * 4)
    assert "Modality" in frame
    assert notes == ()
    frame, _ = read(Modality=["t1", "t2"] * 2, Case=["1", "1", "2", "2"])
    assert {"case", "modality"} <= set(frame)


def test_own_columns_called_like_those_of_images_train(tmp_path, write_image):
    paths = [write_image(tmp_path / "ward" / f"{n}.png", n).name for n in range(20)]
    frame = pd.DataFrame({"path": paths, "label": ["x", "y"] * 10})
    own = {name: ["", "", *(f"{name}{n}" for n in range(18))] for name in RESERVED}
    frame.assign(**own).to_csv(tmp_path / "ward" / "labels.csv", index=False)
    dataset = load(str(tmp_path / "ward" / "labels.csv"), 5, seed=0)
    assert len(dataset.labels) == 20
    assert dataset.frame.columns.is_unique
    assert dataset.frame[["width", "mode"]].drop_duplicates().to_numpy().tolist() == [[7, "grey"]]
    assert sorted(dataset.frame["csv_width"]) == sorted(own["width"])
    assert any("width (csv_width here)" in note for note in dataset.notes)


def test_an_own_column_called_like_a_modality_stays_beside_it():
    frame, notes = read(case=["1", "1", "2", "2"], modality=["t1", "t2"] * 2, image_t1=PATIENTS)
    assert frame["csv_image_t1"].tolist() == PATIENTS
    assert "image_t1 (csv_image_t1 here)" in notes[0]
