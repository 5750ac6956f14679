"""The facts of a data set: counts, patients, sizes, copies, blank images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from medtl.data.loading import load
from medtl.data.quality.checks import data_facts
from medtl.data.quality.thumbnails import images_of, looks_of, mean_over_areas
from medtl.settings.data import Reading


@pytest.fixture
def table(write_image, tmp_path):
    """A CSV of 24 images of noise, two a patient, one blank image, and a copy in each split."""
    rows = ["path,label,patient,split"]
    for number in range(24):
        split = ("train", "valid", "test")[number // 8]
        label = "ab"[number // 2 % 2]
        write_image(tmp_path / f"{number:02d}.png", number, (40, 30 if label == "a" else 50))
        rows.append(
            f"{number:02d}.png,{label},{'p' + str(number // 2) if number < 20 else ''},{split}"
        )
    Image.new("L", (30, 40), 7).save(tmp_path / "03.png")
    Image.open(tmp_path / "00.png").save(tmp_path / "23.png")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return str(tmp_path / "labels.csv")


def test_facts_of_a_table(table):
    facts = data_facts(load(table, 32, 0, Reading(duplicates="allow")), seed=0)
    counts = facts.counts.set_index(["class", "split"])
    assert counts["images"].tolist() == [4] * 6
    assert counts["patients"].tolist() == [2, 2, 3, 2, 2, 3]
    assert facts.unknown == 4
    assert len(facts.patients) == 10
    assert facts.patients["images"].tolist() == [2] * 10
    assert set(facts.patients["labels"]) == {"a", "b"}
    assert set(facts.patients["splits"]) == {"train", "valid", "test"}
    assert facts.sizes[["width", "height", "images", "a", "b"]].to_numpy().tolist() == [
        [30, 40, 14, 12, 2],
        [50, 40, 10, 0, 10],
    ]
    assert facts.blank["path"].tolist() == ["03.png"]
    (pair,) = facts.copies.to_dict("records")
    assert {pair["first_path"], pair["second_path"]} == {"00.png", "23.png"}
    assert {pair["first_split"], pair["second_split"]} == {"train", "test"}
    assert {pair["first_label"], pair["second_label"]} == {"a", "b"}
    assert {pair["first_patient"], pair["second_patient"]} == {"p0", ""}
    assert pair["kind"] == "identical"
    assert facts.shortcuts is not None


def test_a_patient_of_two_classes_is_told(write_image, tmp_path):
    rows = ["path,label,patient"]
    for number in range(20):
        write_image(tmp_path / f"{number}.png", number)
        rows.append(f"{number}.png,{'ab'[number % 2]},p{number // 4}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    facts = data_facts(load(str(tmp_path / "labels.csv"), 16, 0), seed=0)
    assert facts.patients["labels"].tolist() == ["a|b"] * 5
    assert facts.unknown == 0
    assert facts.copies.empty
    assert facts.blank.empty


def test_the_images_of_cases_count_one_by_one(write_image, tmp_path):
    rows = ["path,label,case,modality"]
    for number in range(16):
        for modality in ("ct", "pt"):
            name = f"{number}_{modality}.png"
            if (number, modality) != (5, "pt"):
                write_image(tmp_path / name, 2 * number + (modality == "pt"))
                rows.append(f"{name},{'ab'[number % 2]},c{number},{modality}")
    shutil.copy(tmp_path / "0_ct.png", tmp_path / "2_pt.png")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    dataset = load(str(tmp_path / "labels.csv"), 16, 0, Reading(missing="mask"))
    images = images_of(dataset)
    assert len(images.frame) == 31
    assert "5_pt.png" not in set(images.frame["path"])
    for number in (0, 10, 30):
        path = images.frame["path"][number]
        case = dataset.frame["case"].tolist().index(f"c{path.split('_')[0]}")
        modality = dataset.modalities.index(path[-6:-4])
        whole = dataset.images(np.array([case]))[0, modality]
        assert np.array_equal(images.pictures(np.array([number]))[0], whole)
        assert images.frame["bytes"][number] == (tmp_path / path).stat().st_size
        assert images.labels[number] == dataset.labels[case]
    facts = data_facts(dataset, seed=0)
    assert facts.modalities == ("ct", "pt")
    assert facts.copies["kind"].tolist() == ["identical"]
    assert facts.counts["images"].sum() == 31


def test_looks_are_those_of_the_pixels(write_image, tmp_path):
    for number in range(12):
        write_image(tmp_path / "ab"[number % 2] / f"{number}.png", number, (64, 64, 3))
    edge = np.zeros((64, 64), np.uint8)
    edge[:4] = 255
    Image.fromarray(edge).save(tmp_path / "a" / "edge.png")
    images = images_of(load(str(tmp_path), 64, 0))
    looks = looks_of(images)
    place = images.frame["path"].tolist().index("a/edge.png")
    assert looks.borders[place] == pytest.approx([1, 0, 1 / 16, 1 / 16], abs=1e-3)
    assert looks.thumbnails[place] == pytest.approx(edge / 255, abs=1e-3)
    assert not looks.blank.any()


@pytest.mark.parametrize(("side", "smaller"), [(224, 64), (96, 64), (5, 64), (64, 32)])
def test_means_over_areas_keep_the_mean(side, smaller):
    shrink = mean_over_areas(side, smaller)
    assert shrink.sum(axis=1) == pytest.approx(np.ones(smaller), abs=1e-5)
    values = np.random.default_rng(0).random(side)
    assert (shrink @ values).mean() == pytest.approx(values.mean(), abs=1e-5)
