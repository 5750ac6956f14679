"""Folders other than classes are refused with a remedy, and omitted files are counted."""

from __future__ import annotations

import pytest

from medtl.data.loading import load
from medtl.data.manifest import read_table
from medtl.data.quality.checks import data_facts
from medtl.errors import MedtlError
from medtl.reporting.plots.data_quality import image_sizes


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (("virus/1.svs", "virus/2.svs"), r"virus holds no image that can be read \(2 .svs\)"),
        (("virus/1.npy", "virus/notes.txt"), r"\(1 .npy, 1 .txt\)"),
        (("virus/x/",), "virus holds no image: put images into it, or remove it"),
    ],
)
def test_a_class_without_an_image_is_refused(write_folder, files, reason):
    root = write_folder({"normal": 2, "bacteria": 2})
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).mkdir() if name.endswith("/") else (root / name).write_bytes(b"x")
    with pytest.raises(MedtlError, match=reason):
        read_table(str(root))


def test_a_class_that_is_read_elsewhere_is_refused(write_folder):
    root = write_folder({"normal": 2, "bacteria": 2})
    (root / "virus").symlink_to(root / "bacteria")
    with pytest.raises(MedtlError, match="virus is a link to a folder that is read elsewhere"):
        read_table(str(root))


def test_a_class_that_one_split_lacks_is_said(write_folder):
    root = write_folder({"train/a": 2, "train/b": 2, "test/a": 2})
    (root / "test" / "b").mkdir()
    notes = read_table(str(root)).notes
    assert "test/b holds no image" in notes


def test_documents_and_what_lies_beside_the_classes_are_said(write_folder, write_image):
    root = write_folder({"normal": 2, "bacteria": 2})
    for name in ("docs/README.md", "labels.csv", "virus.zip", "LICENSE"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"x")
    write_image(root / "loose.png", 9)
    table = read_table(str(root))
    assert table.classes == ("normal", "bacteria")
    said = "\n".join(table.notes)
    for line in (
        "images beside the class folders left out: 1 (loose.png)",
        "archives beside the class folders, not unpacked: 1 (virus.zip)",
        "tables beside the class folders, not read (for its labels pass one as data): 1 (l",
        "files that are no images left out, 1 .md: 1 (docs/README.md)",
    ):
        assert line in said


def test_two_folders_of_one_split_are_said(write_folder):
    names = ("train/a", "train/b", "val/a", "validation/b")
    notes = read_table(str(write_folder(dict.fromkeys(names, 2)))).notes
    assert "val and validation are one split, valid" in notes


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("images_001/images", "images_002/images"), "images_001, images_002 are parts of an arch"),
        (("HAM_images_part_1", "HAM_images_part_2"), "are parts of an archive or folds, not class"),
        (("fold1/a", "fold1/b", "fold2/a", "fold2/b"), "pass a CSV file with the columns path and"),
        (("train/part1", "train/part2"), "are parts of an archive or folds"),
        (
            ("patient1/a", "patient1/b", "patient2/a", "patient2/b"),
            "are patients or sites, not classes, and each holds folders like a, b: pass a CSV",
        ),
        (("10253/0", "10253/1", "10254/0", "10254/1"), "are patients or sites"),
    ],
)
def test_folders_that_are_no_classes_are_refused(write_folder, classes, reason):
    with pytest.raises(MedtlError, match=reason):
        read_table(str(write_folder(dict.fromkeys(classes, 2))))


def test_the_table_beside_the_parts_is_named(write_folder):
    root = write_folder({"images_001": 2, "images_002": 2})
    (root / "Data_Entry.csv").write_text("x")
    with pytest.raises(MedtlError, match=r"pass data=.*/scans/Data_Entry\.csv to read labels"):
        read_table(str(root))


@pytest.mark.parametrize(
    "classes",
    [
        ("grade 1", "grade 2"),
        ("0", "1"),
        ("type_1/left", "type_1/right", "type_2/left", "type_2/right"),
        ("benign/40X", "benign/100X", "malignant/40X", "malignant/100X"),
        ("stage1", "images_2"),
        ("2019", "2020"),
    ],
)
def test_classes_may_have_numbers_and_folders_of_equal_names(write_folder, classes):
    assert len(read_table(str(write_folder(dict.fromkeys(classes, 2)))).classes) == 2


def test_the_folder_with_the_classes_is_named_where_it_lies_further_down(write_folder):
    root = write_folder(
        {"chest/chest/train/a": 2, "chest/chest/train/b": 2, "chest/chest/val/a": 1}
    )
    said = (
        r"of one class, chest; .* if train, val are the classes or splits, pass data=.*chest/chest"
    )
    with pytest.raises(MedtlError, match=said):
        read_table(str(root))


def test_a_class_called_like_a_split_is_told_to_have_another_name(write_folder):
    with pytest.raises(MedtlError, match="a class needs a name other than train, "):
        read_table(str(write_folder({"train": 2, "bus": 2})))


def test_classes_may_be_called_like_columns(write_folder):
    names = ("width", "height", "images", "mode", "label", "patient", "class", "split", "path")
    dataset = load(str(write_folder(dict.fromkeys(names, 4))), 5, seed=0)
    facts = data_facts(dataset, seed=0)
    assert facts.sizes.iloc[:, 4:].sum().tolist() == [4] * len(names)
    assert not facts.sizes.columns.duplicated().any()
    image_sizes(facts.sizes, facts.classes)
