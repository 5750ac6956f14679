"""Cases of several images: one sample each, whole in every split, complete or said not to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.data.loading import load
from medtl.data.manifest import read_table
from medtl.data.sources.phantoms.datasets import write_head_phantoms
from medtl.errors import MedtlError
from medtl.settings.data import Reading

SIDE = 16


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """The CSV of 24 head phantoms, each with a T1 and a T2 image."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    write_head_phantoms(folder, patients=24, image_size=SIDE)
    return folder / "labels.csv"


def changed(file: Path, change) -> str:
    """The CSV with its rows changed."""
    change(pd.read_csv(file, dtype=str)).to_csv(file, index=False)
    return str(file)


def test_rows_of_one_case_are_one_sample(clinic: Path):
    table = read_table(changed(clinic, lambda rows: rows.sample(frac=1, random_state=0)))
    assert table.modalities == ("t1", "t2")
    assert len(table.frame) == 24
    assert len(table.files()) == 48
    assert all(f"_{name}" in path for path, name in zip(table.paths(), ("t1", "t2") * 24))  # noqa: B905
    assert {path.partition("_")[0] for path in table.paths()[:2]} == {table.frame["case"][0]}


def test_images_come_by_case_and_modality(clinic: Path):
    dataset = load(str(clinic), SIDE, seed=0)
    images = dataset.images(np.arange(24))
    assert images.shape == (24, 2, 1, SIDE, SIDE)
    assert sum(map(len, dataset.splits.values())) == 24
    for place, name in enumerate(dataset.modalities):
        alone = dataset.only(name)
        assert np.array_equal(alone.images(np.arange(24))[:, 0], images[:, place])
        assert alone.fingerprint != dataset.fingerprint
        assert list(alone.frame["case"]) == list(dataset.frame["case"])
    with pytest.raises(MedtlError, match="no modality t3; it has t1, t2"):
        dataset.only("t3")


def test_the_order_of_the_rows_decides_nothing(clinic: Path):
    first = load(str(clinic), SIDE, seed=0)
    second = load(changed(clinic, lambda rows: rows.iloc[::-1]), SIDE, seed=0)
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(second.images(np.arange(24)), first.images(np.arange(24)))


def test_a_missing_image_is_refused_by_name_or_masked(clinic: Path):
    whole = load(str(clinic), SIDE, seed=0)
    data = changed(clinic, lambda rows: rows[rows["path"] != "h0003_t2.png"])
    with pytest.raises(MedtlError, match=r"1 image is missing \(h0003 has no t2\).*missing=mask"):
        load(data, SIDE, seed=0)
    dataset = load(data, SIDE, seed=0, reading=Reading(missing="mask"))
    row = dataset.frame.index[dataset.frame["case"] == "h0003"].to_numpy()
    t1, t2 = dataset.images(row)[0]
    assert t1.any()
    assert not t2.any()
    others = np.flatnonzero(dataset.frame["case"] != "h0003")
    assert dataset.images(others).any(axis=(2, 3, 4)).all()
    assert "masked" in dataset.notes[0]
    assert dataset.fingerprint != whole.fingerprint


def test_an_unreadable_image_is_named_and_its_case_skipped(clinic: Path):
    (clinic.parent / "h0005_t1.png").write_bytes(b"no image")
    with pytest.raises(MedtlError, match=r"1 of 48 images cannot be read \(h0005_t1\.png: "):
        load(str(clinic), SIDE, seed=0)
    dataset = load(str(clinic), SIDE, seed=0, reading=Reading(unreadable="skip"))
    assert len(dataset.frame) == 23
    assert "h0005" not in set(dataset.frame["case"])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda rows: rows.drop(columns="modality"), "has the column case and not modality"),
        (lambda rows: rows.assign(modality="t1"), "24 rows have a modality that its case has bef"),
        (lambda rows: rows.assign(case=rows["case"].mask(rows.index == 2, "")), "no case"),
        (
            lambda rows: rows.assign(label=rows["label"].mask(rows.index == 1, "fat")),
            "another label than their case",
        ),
        (
            lambda rows: rows.assign(patient=rows["patient"].mask(rows.index == 1, "h0009")),
            "another patient than their case",
        ),
        (
            lambda rows: rows.assign(split=["train", "test"] * 24),
            "another split than their case",
        ),
    ],
)
def test_what_is_wrong_with_cases_is_one_line(clinic: Path, change, line: str):
    with pytest.raises(MedtlError, match=line) as raised:
        read_table(changed(clinic, change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("modality", "alike"),
    [
        ("t1", {"blood": "fat", "fat": "blood", "fibrous": "fluid", "fluid": "fibrous"}),
        ("t2", {"blood": "fibrous", "fibrous": "blood", "fat": "fluid", "fluid": "fat"}),
    ],
)
def test_on_either_head_phantom_alone_each_class_looks_like_one_other(
    tmp_path: Path, modality: str, alike: dict[str, str]
):
    write_head_phantoms(tmp_path, patients=80, image_size=SIDE)
    dataset = load(str(tmp_path / "labels.csv"), SIDE, seed=0).only(modality)
    images = dataset.images(np.arange(80)).astype(float)
    means = [images[dataset.labels == label].mean(axis=0) for label in range(4)]
    apart = np.array([[np.abs(one - other).mean() for other in means] for one in means])
    np.fill_diagonal(apart, np.inf)
    nearest = [dataset.classes[label] for label in apart.argmin(axis=1)]
    assert dict(zip(dataset.classes, nearest, strict=True)) == alike
