"""What a model learned from is known again, by image and by patient, and cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.inference.training_record import TrainingRecord, learned_from

SPLITS = ["train"] * 8 + ["valid"] * 4 + ["test"] * 4


@pytest.fixture
def ward(tmp_path: Path, write_image) -> Path:
    """A CSV of 16 images of 8 patients, two each, whose names nobody would guess."""
    rows = []
    for number, split in enumerate(SPLITS):
        file = write_image(tmp_path / "ward" / f"{number:02d}.png", number)
        label = "ab"[number // 2 % 2]
        rows.append((file.name, label, f"Doe, Jane {number // 2}", split))
    return write(tmp_path / "ward" / "labels.csv", rows)


def write(file: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "split"])
    table.to_csv(file, index=False)
    return file


def everything(dataset: Dataset) -> np.ndarray:
    return np.arange(len(dataset.labels))


def test_train_and_valid_were_learned_from_and_test_was_not(ward: Path):
    dataset = load(str(ward), 5, seed=0)
    record = TrainingRecord.of(dataset)
    assert (len(record.images), len(record.patients)) == (12, 6)
    learned = record.among(dataset, everything(dataset))
    assert np.array_equal(learned, dataset.frame["split"] != "test")


def test_an_image_is_known_under_any_name_format_and_label(ward: Path, tmp_path: Path, write_image):
    record = TrainingRecord.of(load(str(ward), 5, seed=0))
    other = tmp_path / "elsewhere"
    for kind, number in (("sick", 0), ("well", 9), ("sick", 12), ("well", 15)):
        (other / kind).mkdir(parents=True, exist_ok=True)
        Image.open(ward.with_name(f"{number:02d}.png")).save(other / kind / f"x{number}.bmp")
    for number in range(100, 120):
        write_image(other / ("sick" if number % 2 else "well") / f"{number}.png", number)
    dataset = load(str(other), 5, seed=0)
    learned = learned_from([record], dataset, everything(dataset))
    assert set(dataset.frame["path"][learned]) == {"sick/x0.bmp", "well/x9.bmp"}
    assert not learned_from([], dataset, everything(dataset)).any()


@pytest.mark.parametrize(("name", "shared", "known"), [
    ("ward", False, True),  # the same data set, grown
    ("copy", True, True),  # a copy of it, grown
    ("clinic", False, False),  # another one, which numbers its patients alike
])  # fmt: skip
def test_a_patient_is_known_where_names_mean_the_same(
    ward: Path, tmp_path: Path, write_image, name: str, shared: bool, known: bool
):
    record = TrainingRecord.of(load(str(ward), 5, seed=0))
    folder = tmp_path / "later" / name
    rows = []
    for number in range(8):
        write_image(folder / f"{number}.png", 100 + number)
        rows.append((f"{number}.png", "ab"[number % 2], f"Doe, Jane {number}", "test"))
    if shared:
        shutil.copy(ward.with_name("00.png"), folder / "00.png")
        rows.append(("00.png", "a", "", "test"))
    dataset = load(str(write(folder / "labels.csv", rows)), 5, seed=0)
    learned = record.among(dataset, everything(dataset))
    found = set(dataset.frame["patient"][learned])
    expected = {f"Doe, Jane {number}" for number in range(6)} if known else set()
    assert found == expected | ({""} if shared else set())


def test_unknown_patients_are_not_one_patient(ward: Path):
    table = pd.read_csv(ward)
    table.assign(patient="").to_csv(ward, index=False)
    dataset = load(str(ward), 5, seed=0)
    record = TrainingRecord.of(dataset)
    assert len(record.patients) == 0
    assert not record.among(dataset, dataset.splits["test"]).any()


def test_one_known_image_makes_a_case_known(ward: Path, tmp_path: Path, write_image):
    record = TrainingRecord.of(load(str(ward), 5, seed=0))
    folder = tmp_path / "cases"
    rows = []
    for case in range(4):
        for modality in ("t1", "t2"):
            file = write_image(folder / f"{case}{modality}.png", 200 + 2 * case + len(rows))
            rows.append((file.name, "ab"[case % 2], "test", f"c{case}", modality))
    shutil.copy(ward.with_name("03.png"), folder / "2t2.png")
    columns = ["path", "label", "split", "case", "modality"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "labels.csv", index=False)
    dataset = load(str(folder / "labels.csv"), 5, seed=0)
    assert list(dataset.frame["case"][record.among(dataset, everything(dataset))]) == ["c2"]


def test_a_record_is_kept_as_json_without_a_name(ward: Path):
    dataset = load(str(ward), 5, seed=0)
    record = TrainingRecord.of(dataset)
    text = json.dumps(record.record())
    assert "Jane" not in text
    assert ".png" not in text
    again = TrainingRecord.of_record(json.loads(text))
    assert (again.data, again.salt) == ("ward", dataset.fingerprint)
    np.testing.assert_array_equal(again.images, record.images)
    np.testing.assert_array_equal(again.patients, record.patients)


def test_hashes_of_one_name_differ_between_data_sets(ward: Path):
    first = TrainingRecord.of(load(str(ward), 5, seed=0))
    table = pd.read_csv(ward)
    table.assign(label=table["label"].map({"a": "b", "b": "a"})).to_csv(ward, index=False)
    second = TrainingRecord.of(load(str(ward), 5, seed=0))
    np.testing.assert_array_equal(first.images, second.images)
    assert not np.isin(first.patients, second.patients).any()
