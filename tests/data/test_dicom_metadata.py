"""DICOM headers fill in what a table lacks, and nothing that identifies anyone gets out."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest

from medtl.cache import kept_folder
from medtl.data.dicom_metadata import hashed, read_headers
from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.pipeline.run_logging import log_data
from medtl.settings.data import Reading

SECRETS = ("MRN-4711", "Mustermann", "19701231", "1.2.826.0.1.3680043.8.498.77")


def study(number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.77.{number}"


@pytest.fixture
def clinic(tmp_path, write_dicom) -> Path:
    """Twelve patients with two images each, in folders of two classes."""
    for number in range(24):
        patient = number // 2
        write_dicom(
            tmp_path / "clinic" / "ab"[patient % 2] / f"{number:02d}.dcm",
            number,
            PatientID=f"MRN-4711-{patient:02d}",
            PatientName="Mustermann^Erika",
            PatientBirthDate="19701231",
            StudyInstanceUID=study(number),
            ViewPosition="PA",
            ImageLaterality="LR"[number % 2],
        )
    return tmp_path / "clinic"


def test_a_folder_gets_patients_sides_and_views(clinic):
    dataset = load(str(clinic), 5, seed=0)
    frame = dataset.frame
    assert frame["patient"].map(lambda name: bool(re.fullmatch(r"P-[0-9a-f]{10}", name))).all()
    whose = frame["path"].str[2:4].astype(int) // 2
    assert frame.groupby(whose)["patient"].nunique().max() == 1
    assert frame["patient"].nunique() == len(np.unique(dataset.patients)) == 12
    assert frame.groupby("patient")["split"].nunique().max() == 1
    assert set(frame["view"]) == {"PA"}
    assert (frame["laterality"] == frame["path"].map(lambda path: "LR"[int(path[2:4]) % 2])).all()
    assert frame["study"].nunique() == 24
    assert "DICOM headers name the patients of 24 images, shown as hashes" in dataset.notes


def test_nothing_that_identifies_is_logged_or_shown(clinic, tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = load(str(clinic), 16, seed=0, reading=Reading(frames="all"))
        with mlflow.start_run() as run:
            log_data(dataset)
    artifacts = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    assert (artifacts / "data" / "splits.csv").read_text().count("P-") == 24
    logged = [file for file in tmp_path.rglob("*") if file.is_file() and clinic not in file.parents]
    logged += [file for file in artifacts.rglob("*") if file.is_file()]
    shown = "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in caught)
    assert any(file.name == "headers.csv" for file in logged)
    for secret in SECRETS:
        assert secret not in shown
        for file in logged:
            assert secret.encode() not in file.read_bytes(), file


def test_identifiers_that_break_the_rules_are_not_cited_by_warnings(tmp_path, write_dicom):
    file = write_dicom(tmp_path / "long.dcm", 0, PatientID="x")
    data = file.read_bytes()
    long = b"MRN-4711" + b"9" * 72
    tag = b"\x10\x00\x20\x00LO"
    place = data.index(tag) + len(tag)
    file.write_bytes(data[:place] + len(long).to_bytes(2, "little") + long + data[place + 4 :])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (patient,) = read_headers([file])["patient"]
    assert patient.startswith("P-")
    assert not [warning for warning in caught if "MRN" in str(warning.message)]


def test_hashes_hold_for_one_user_and_mean_nothing_to_another(monkeypatch, tmp_path):
    first = hashed("P", "MRN-4711")
    assert hashed("P", "MRN-4711") == first != hashed("P", "MRN-4712")
    monkeypatch.setenv("MEDTL_CACHE", str(tmp_path / "another"))
    assert hashed("P", "MRN-4711") != first


def test_what_the_csv_says_stays(clinic):
    rows = ["path,label,patient,view"]
    for number in range(24):
        kind = "ab"[number // 2 % 2]
        # of the first patient the name that the header has too, of the second one's own name
        patient = {0: "MRN-4711-00", 2: "anna", 3: "anna"}.get(number, "")
        rows.append(f"{kind}/{number:02d}.dcm,{kind},{patient},{'AP' if number else ''}")
    (clinic / "labels.csv").write_text("\n".join(rows))
    frame = load(str(clinic / "labels.csv"), 5, seed=0).frame.set_index("path")
    assert frame["patient"][["a/00.dcm", "a/01.dcm"]].tolist() == ["MRN-4711-00"] * 2
    assert frame["patient"][["b/02.dcm", "b/03.dcm"]].tolist() == ["anna"] * 2
    assert frame["patient"].str.startswith("P-").sum() == 20
    assert frame["view"].value_counts().to_dict() == {"AP": 23, "PA": 1}


def test_given_splits_that_share_a_patient_are_refused_by_hash(clinic):
    for split, numbers in (("train", range(0, 24, 2)), ("test", range(1, 24, 2))):
        for number in numbers:
            place = clinic / split / "ab"[number // 2 % 2] / f"{number:02d}.dcm"
            place.parent.mkdir(parents=True, exist_ok=True)
            (clinic / "ab"[number // 2 % 2] / place.name).rename(place)
    for kind in "ab":
        (clinic / kind).rmdir()
    with pytest.raises(MedtlError, match=r"12 patients are in more than one split: P-") as refusal:
        load(str(clinic), 5, seed=0)
    assert "MRN" not in str(refusal.value)


@pytest.mark.parametrize("name", ["ANONYMOUS", "0000", "Anonymized^", "", "no id", "x", "De-Id"])
def test_names_of_nobody_are_unknown_and_studies_stand_in(tmp_path, write_dicom, name):
    files = [
        write_dicom(tmp_path / f"{n}.dcm", n, PatientID=name, StudyInstanceUID=study(n // 2))
        for n in range(4)
    ]
    headers = read_headers(files)
    assert headers["patient"].tolist() == [""] * 4
    assert headers["study"].nunique() == 2


@pytest.mark.parametrize("name", ["ANON{:05}", "Anonymous_{}", "deid-{:03}", "Anonymized^{}"])
def test_numbered_words_of_an_anonymizer_are_patients(tmp_path, write_dicom, name):
    for number in range(48):
        patient = number // 4
        place = tmp_path / "set" / "ab"[patient % 2] / f"{number}.dcm"
        elements = {"PatientID": name.format(patient), "StudyInstanceUID": study(number // 2)}
        write_dicom(place, number, **elements)
    frame = load(str(tmp_path / "set"), 5, seed=0).frame
    assert frame["patient"].str.startswith("P-").all()
    assert frame["patient"].nunique() == 12
    assert frame.groupby(frame["path"].str[2:-4].astype(int) // 4)["split"].nunique().max() == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ""])
def test_headers_are_read_whatever_a_file_is_called(tmp_path, write_dicom, suffix):
    files = [
        write_dicom(tmp_path / f"{n}{suffix}", n, PatientID=f"p{n}", frames=1 + n) for n in range(2)
    ]
    headers = read_headers(files)
    assert headers["patient"].str.startswith("P-").all()
    assert headers["patient"].nunique() == 2
    assert headers["frames"].tolist() == [1, 2]


def test_one_name_in_all_headers_is_taken_for_none(tmp_path, write_dicom):
    for number in range(40):
        place = tmp_path / "set" / "ab"[number % 2] / f"{number}.dcm"
        write_dicom(place, number, PatientID="SET01", StudyInstanceUID=study(number // 4))
    dataset = load(str(tmp_path / "set"), 5, seed=0)
    assert "all DICOM headers name one patient, who is taken for unknown" in dataset.notes
    assert dataset.frame["patient"].str.startswith("S-").all()
    assert dataset.frame["patient"].nunique() == 10
    assert dataset.frame.groupby("patient")["split"].nunique().max() == 1
    assert dataset.unit == "studies; patients unknown"
    assert not dataset.has_patient.any()
    assert any("no patient but a study for 40 images" in note for note in dataset.notes)


def test_other_files_know_nothing(tmp_path, write_image):
    (tmp_path / "notes").write_bytes(b"text")
    (tmp_path / "cut.dcm").write_bytes(bytes(128) + b"DICM\x02\x00")
    files = [write_image(tmp_path / "a.png", 0), tmp_path / "notes", tmp_path / "cut.dcm", None]
    headers = read_headers(files)
    assert set(headers["patient"]) == set(headers["view"]) == {""}
    assert headers["frames"].tolist() == [1] * 4


def test_a_case_of_two_patients_is_refused(tmp_path, write_dicom):
    rows = ["path,label,case,modality"]
    for number in range(8):
        patient = "p9" if number == 3 else f"p{number // 2}"
        write_dicom(tmp_path / f"{number}.dcm", number, PatientID=patient, ViewPosition="PA")
        rows.append(f"{number}.dcm,{'ab'[number // 2 % 2]},c{number // 2},t{number % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(MedtlError, match=r"1 case.* several patients .*\(c1\)"):
        load(str(tmp_path / "labels.csv"), 5, seed=0)


def test_a_damaged_key_is_not_drawn_anew_behind_ones_back():
    before = hashed("P", "P-17")
    key = kept_folder("patients", "key") / "key"
    whole = key.read_bytes()
    key.write_bytes(whole[:7])
    with pytest.raises(MedtlError, match="put back a copy of it, or remove"):
        hashed("P", "P-17")
    key.write_bytes(whole)
    assert hashed("P", "P-17") == before
