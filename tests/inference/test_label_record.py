"""Label agreement of two data sets, from a hashed record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.inference.label_record import Agreement, LabelRecord


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes forty images, with CSVs of labels, of swapped labels and of findings."""
    place = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for index in range(40):
        pixels = random.integers(0, 256, (24, 24)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{index}.png")
    paths = [f"{index}.png" for index in range(40)]
    answers = np.where(np.arange(40) % 2 == 0, "yes", "no")
    _write(place / "sick.csv", paths, answers)
    _write(place / "well.csv", paths, np.where(answers == "yes", "no", "yes"))
    corrected = answers.copy()
    corrected[3] = "yes"
    _write(place / "corrected.csv", paths[:30], corrected[:30])
    findings = ["mass|nodule", "mass", "nodule", "none"] * 10
    _write(place / "findings.csv", paths, findings)
    _write(place / "others.csv", paths, [*findings[:39], "mass|nodule"])
    return place


def _write(file: Path, paths: list[str], labels) -> None:
    pd.DataFrame({"path": paths, "label": labels}).to_csv(file, index=False)


def of(folder: Path, name: str) -> Dataset:
    return load(str(folder / f"{name}.csv"), 16, seed=0)


def test_labels_of_images_in_both_are_compared(folder: Path):
    sick = of(folder, "sick")
    record = LabelRecord.of(sick)
    assert record.agreement(sick) == Agreement(40, 0)
    assert record.agreement(of(folder, "well")) == Agreement(40, 40)
    assert record.agreement(of(folder, "corrected")) == Agreement(30, 1)
    assert LabelRecord.of(of(folder, "corrected")).agreement(sick) == Agreement(30, 1)


def test_each_finding_is_a_label(folder: Path):
    record = LabelRecord.of(of(folder, "findings"))
    assert record.agreement(of(folder, "findings")) == Agreement(80, 0)
    assert record.agreement(of(folder, "others")) == Agreement(80, 2)
    assert record.agreement(of(folder, "sick")) == Agreement(0, 0)


def test_it_travels_as_json_and_tells_no_label(folder: Path):
    sick = of(folder, "sick")
    record = LabelRecord.of(sick)
    text = json.dumps(record.record())
    assert LabelRecord.of_record(json.loads(text)).agreement(sick) == Agreement(40, 0)
    assert "yes" not in text.replace(record.salt, "")
    # codes of equal labels differ between samples, so that they cannot be grouped
    assert len(np.unique(record.labels)) > 20


def test_without_an_image_in_common_nothing_is_compared(folder: Path, tmp_path: Path):
    for index in range(24):
        Image.fromarray(np.full((24, 24), index, np.uint8)).save(tmp_path / f"{index}.png")
    paths = [f"{index}.png" for index in range(24)]
    _write(tmp_path / "flat.csv", paths, np.where(np.arange(24) % 2, "yes", "no"))
    assert LabelRecord.of(of(folder, "sick")).agreement(of(tmp_path, "flat")) == Agreement(0, 0)
