"""ChestX-ray14 is read as it is published, or one line says what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medtl.data.loading import load
from medtl.data.manifest import data_name, read_table
from medtl.errors import MedtlError
from medtl.settings.data import Reading


@pytest.fixture
def published(chestxray14, tmp_path) -> Path:
    """The CSV of a copy that a test may change."""
    return Path(shutil.copytree(chestxray14.parent, tmp_path / "ChestX-ray14")) / chestxray14.name


def flat(table: Path, folder: Path) -> None:
    """Moves all images into one folder."""
    folder.mkdir(exist_ok=True)
    for image in list(table.parent.rglob("*.png")):
        image.rename(folder / image.name)


def lines(table: Path) -> list[str]:
    return table.read_text().splitlines()


def test_the_table_is_read_as_published(chestxray14):
    table = read_table(str(chestxray14), Reading(positive="any"))
    assert table.name == data_name(str(chestxray14)) == "ChestX-ray14"
    assert table.classes == ("negative", "positive")
    assert all(file.is_file() for file in table.files())
    asked = ["path", "label", "patient", "age", "gender", "view", "follow_up", "split"]
    assert sorted(table.frame.columns) == sorted(asked)
    for line, row in zip(lines(chestxray14)[1:], table.frame.itertuples(), strict=True):
        name, findings, follow_up, patient, age, gender, view = line.split(",")[:7]
        assert Path(row.path).name == name
        assert (row.label == "negative") == (findings == "No Finding")
        known = (row.follow_up, row.patient, row.age, row.gender, row.view)
        assert known == (follow_up, patient, age, gender, view)
        assert row.split == ("test" if int(patient) > 18 else "")


def test_valid_is_drawn_by_patient_out_of_the_published_training_images(chestxray14):
    dataset = load(str(chestxray14), 8, seed=0, reading=Reading(positive="any"))
    split = dataset.frame["split"]
    of_patient = dataset.frame.groupby("patient")["split"].unique()
    assert (of_patient.map(len) == 1).all()
    assert set(of_patient.index[of_patient.map(lambda found: "test" in found)]) == set(
        map(str, range(19, 25))
    )
    assert {name: (split == name).sum() > 0 for name in ("train", "valid")} == {
        "train": True,
        "valid": True,
    }
    count = (dataset.frame["label"] == "positive").sum()
    assert dataset.notes[0] == (
        f"positive=any: {count} of {len(split)} are positive, all else negative"
    )
    assert any(note.startswith("valid drawn by patient") for note in dataset.notes)


@pytest.mark.parametrize("place", ["images", "."])
def test_the_images_may_lie_in_one_folder(published, place):
    before = read_table(str(published), Reading(positive="any")).frame
    flat(published, published.parent / place)
    table = read_table(str(published), Reading(positive="any"))
    assert all(file.is_file() for file in table.files())
    assert {Path(path).parent.as_posix() for path in table.frame["path"]} == {place}
    assert table.frame.drop(columns="path").equals(before.drop(columns="path"))


def test_the_folder_is_read_like_its_table(published):
    by_table, by_folder = (read_table(str(place)) for place in (published, published.parent))
    assert by_folder.frame.equals(by_table.frame)
    assert by_folder.name == by_table.name
    assert any(note.startswith("read in the layout of ChestX-ray14") for note in by_folder.notes)


def test_without_the_lists_every_split_is_drawn(published):
    for name in ("train_val_list.txt", "test_list.txt"):
        (published.parent / name).unlink()
    assert set(read_table(str(published), Reading(positive="any")).frame["split"]) == {""}
    dataset = load(str(published), 8, seed=0, reading=Reading(positive="any"))
    assert all(len(rows) for rows in dataset.splits.values())


def test_an_edition_that_calls_the_gender_sex(published):
    published.write_text(published.read_text().replace("Patient Gender", "Patient Sex"))
    assert set(read_table(str(published), Reading(positive="any")).frame["gender"]) == {"M"}


def test_images_that_are_not_there_are_counted_and_named(published):
    names = [line.split(",")[0] for line in lines(published)[1:]]
    shutil.rmtree(published.parent / "images_002")
    gone = [name for name in names if int(name[:8]) > 9]
    named = ", ".join(gone[:3])
    reason = rf"{len(gone)} of {len(names)} images are not there \({named}, \.\.\.\); unpack"
    with pytest.raises(MedtlError, match=reason) as refusal:
        read_table(str(published), Reading(positive="any"))
    assert "\n" not in str(refusal.value)
    shutil.rmtree(published.parent / "images_001")
    with pytest.raises(MedtlError, match=f"{len(names)} of {len(names)} images are not there"):
        read_table(str(published), Reading(positive="any"))


def test_one_list_without_the_other_is_refused(published):
    (published.parent / "train_val_list.txt").unlink()
    with pytest.raises(MedtlError, match=r"test_list.txt beside it, and not train_val_list.txt"):
        read_table(str(published), Reading(positive="any"))


def test_lists_that_do_not_give_each_image_one_split_are_refused(published):
    test, rest = (published.parent / name for name in ("test_list.txt", "train_val_list.txt"))
    names = test.read_text()
    test.write_text(f"{names}\n{rest.read_text().split()[0]}")
    with pytest.raises(MedtlError, match=r"both of .* have 1 of the images \(00000001_000.png\)"):
        read_table(str(published), Reading(positive="any"))
    test.write_text(names.replace("00000019_000.png", ""))
    with pytest.raises(MedtlError, match=r"neither of .* has 1 of the images \(00000019_000.png\)"):
        read_table(str(published), Reading(positive="any"))


def test_without_positive_an_image_has_any_number_of_findings(chestxray14):
    table = read_table(str(chestxray14))
    assert table.multi_label
    names = ("Effusion", "Infiltration", "Mass", "Nodule", "Pleural_Thickening")
    assert table.classes == names
    dataset = load(str(chestxray14), 8, seed=0)
    for line in lines(chestxray14)[1:]:
        name, findings = line.split(",")[:2]
        (row,) = dataset.frame.index[dataset.frame["path"].str.endswith(name)]
        there = dict(zip(dataset.classes, dataset.labels[row].tolist(), strict=True))
        assert {name for name, value in there.items() if value} == set(findings.split("|")) - {
            "No Finding"
        }
