"""The page and the lines about a data set say what was found in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.loading import load
from medtl.data.quality.checks import data_facts
from medtl.data.refused_data import RefusedDataError
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.reporting.data_report import DataReport, data_report, refusal_report, report_page
from medtl.settings.data import Reading

ALLOW = Reading(duplicates="allow")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_chest_phantoms(folder, seed=1, patients=60, image_size=64)
    return folder


@pytest.fixture
def phantoms(drawn, tmp_path) -> Path:
    """A folder of CLASS/... with the phantoms of 60 patients."""
    for line in (drawn / "labels.csv").read_text().splitlines()[1:]:
        name, label, _ = line.split(",")
        (tmp_path / "wards" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "wards" / label / name).write_bytes((drawn / name).read_bytes())
    return tmp_path / "wards"


def written(data: str | Path) -> DataReport:
    return data_report(data_facts(load(str(data), 64, 0, ALLOW), seed=0), seed=0)


def test_nothing_stands_out_in_phantoms(drawn):
    report = written(drawn / "labels.csv")
    assert report.findings == ()
    assert "Nothing stands out" in report_page(report)
    assert "no clear shortcut" in report_page(report)
    assert set(report.shortcuts["trace"]) == {"file size", "border brightness", "all together"}
    assert report_page(report).count("<img ") == 4
    assert "No image is a copy of another" in report_page(report)


def test_the_page_needs_nothing_but_itself_and_escapes_what_users_wrote(phantoms):
    named = phantoms / "<i>odd & even"
    (phantoms / "clear").rename(named)
    first = sorted(named.iterdir())[0]
    Image.open(first).save(named / "<b>copy.jpg", quality=80)
    page = report_page(written(phantoms))
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert set(re.findall(r'src="([^;"]+)', page)) == {"data:image/png"}
    assert "&lt;i&gt;odd &amp; even" in page
    assert "&lt;b&gt;copy.jpg" in page
    assert "<i>" not in page
    assert page.count("<img ") == len(re.findall(r'<img alt="[^"]{10,}"', page))


def test_a_class_of_another_size_is_a_shortcut(phantoms):
    assert not any("without the picture" in line for line in written(phantoms).findings)
    for file in (phantoms / "focal").iterdir():
        Image.open(file).resize((72, 72)).save(file)
    report = written(phantoms)
    (line,) = (line for line in report.findings if "without the picture" in line)
    assert "width and height" in line
    scores = report.shortcuts.set_index("trace")
    assert scores["low"]["width and height"] > 0.7
    assert scores["low"]["all together"] > 0.7
    assert "aspect ratio" not in scores.index
    assert "Width against height" in report_page(report)


def test_one_patient_under_two_names_is_said_first(drawn, tmp_path):
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "p0001_0.png", tmp_path / "again.png")
    Image.open(tmp_path / "p0002_0.png").save(tmp_path / "recompressed.jpg", quality=70)
    table = pd.read_csv(tmp_path / "labels.csv", dtype=str).set_index("path")
    with open(tmp_path / "labels.csv", "a", encoding="utf-8") as file:
        file.write(f"again.png,{table['label']['p0001_0.png']},someone\n")
        file.write(f"recompressed.jpg,{table['label']['p0002_0.png']},else\n")
    dataset = load(str(tmp_path / "labels.csv"), 64, 0)
    report = data_report(data_facts(dataset, seed=0), seed=0)
    first, second = report.findings[:2]
    assert first.startswith("1 pair of identical images under two patients")
    assert "again.png" in first
    assert first == dataset.notes[0]
    assert second.startswith("1 group of nearly identical images under two patients")
    summary = report_page(report).split('<div class="summary">')[1]
    assert summary.index("1 pair of identical") < summary.index("1 group of nearly")


def test_unknown_patients_are_not_said_to_be_in_one_split(phantoms):
    report = written(phantoms)
    assert "Patients are unknown: images of one may lie in two splits" in report_page(report)
    assert "no patient in two splits" not in report_page(report)
    assert "; patients unknown" in report_page(report)
    assert "patients</td>" not in report_page(report)


def test_a_refusal_lists_every_image_and_escapes_what_users_wrote():
    table = pd.DataFrame({"patient": ["<b>p", "q"], "path": ["a.png", "<i>.png"]})
    page = refusal_report(RefusedDataError("the <line>", "clinic", "crossing_patients", table))
    assert "&lt;b&gt;p" in page
    assert "&lt;i&gt;.png" in page
    assert "the &lt;line&gt;" in page
    assert "crossing_patients.csv" in page


def test_copies_across_splits_and_labels_and_blank_images_are_said(write_splits):
    root = write_splits
    report = written(root)
    across = next(line for line in report.findings if "in two splits" in line)
    assert across.startswith("1 group of nearly identical images in two splits")
    assert "train/a/0.png" in across
    assert "test/a/copy.jpg" in across
    labels = next(line for line in report.findings if "under two labels" in line)
    assert labels.startswith("1 group of identical images")
    assert any(line == "1 image is blank (valid/b/blank.png)" for line in report.findings)
    assert "across splits" in report_page(report)


@pytest.fixture
def write_splits(tmp_path) -> Path:
    """Smooth images of two classes in given splits, with copies and a blank one."""
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for kind in "ab":
            folder = tmp_path / "given" / split / kind
            folder.mkdir(parents=True)
            for number in range(5):
                coarse = random.integers(0, 256, (20, 20), dtype=np.uint8)
                Image.fromarray(coarse).resize((80, 80)).save(folder / f"{number}.png")
    root = tmp_path / "given"
    Image.open(root / "train/a/0.png").save(root / "test/a/copy.jpg", quality=80)
    Image.open(root / "train/a/1.png").save(root / "train/b/other.png")
    Image.new("L", (80, 80), 30).save(root / "valid/b/blank.png")
    return root


def test_data_to_evaluate_on_has_a_report(write_splits):
    for split in ("train", "valid"):
        (write_splits / split).rename(write_splits.parent / split)
    report = written(write_splits)
    assert "a: 6 of 6 images" in report_page(report)
