"""A data set is loaded, checked and split in one call."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.imaging.decode import decode
from medtl.imaging.pixels import square
from medtl.settings.data import Reading


def test_a_folder_becomes_a_data_set(write_folder):
    root = write_folder({"sick": 10, "healthy": 20})
    dataset = load(str(root), 5, seed=0)
    assert dataset.name == "scans"
    assert dataset.classes == ("healthy", "sick")
    assert np.bincount(dataset.labels).tolist() == [20, 10]
    assert [dataset.classes[label] for label in dataset.labels] == dataset.frame["label"].tolist()
    assert len(set(dataset.patients.tolist())) == 30
    together = np.sort(np.concatenate(list(dataset.splits.values())))
    assert np.array_equal(together, np.arange(30))
    assert len(dataset.fingerprint) == 16
    files = [root / dataset.frame["path"][number] for number in (3, 29)]
    expected = np.stack([square(decode(file.read_bytes()), 5) for file in files])
    assert np.array_equal(dataset.images(np.array([3, 29])), expected)


def test_groups_are_patients_or_else_identical_images(write_folder, write_image):
    root = write_folder({"sick": 10, "healthy": 10})
    lines = ["path,label,patient"]
    for seed in range(20):
        kind, number = ("sick", seed) if seed < 10 else ("healthy", seed - 10)
        lines.append(f"{kind}/{number:03d}.png,{kind},{f'P{seed // 2}' if seed < 10 else ''}")
    for copy in range(3):  # copies of the last healthy image, of an unknown patient
        write_image(root / "copies" / f"{copy}.png", seed=19)
        lines.append(f"copies/{copy}.png,healthy,")
    (root / "labels.csv").write_text("\n".join(lines))
    dataset = load(str(root / "labels.csv"), 5, seed=0)
    frame = dataset.frame
    assert len(np.unique(dataset.groups)) == 5 + 9 + 1
    assert len(np.unique(dataset.patients)) == 5 + 13
    copies = frame["path"].str.startswith("copies") | (frame["path"] == "healthy/009.png")
    assert len(np.unique(dataset.groups[copies])) == 1
    assert dataset.unit == "patients where known (10 of 23 images)"
    assert dataset.positive == "sick"


def test_unit_of_intervals_says_whether_patients_are_known(write_folder):
    root = write_folder({"a": 5, "b": 5, "c": 5})
    dataset = load(str(root), 5, seed=0)
    assert dataset.unit == "images; patients unknown"
    assert dataset.positive == ""
    rows = [
        f"{path},{label},{n}"
        for n, (path, label) in enumerate(
            zip(dataset.frame["path"], dataset.frame["label"], strict=True)
        )
    ]
    (root / "labels.csv").write_text("\n".join(["path,label,patient", *rows]))
    assert load(str(root / "labels.csv"), 5, seed=0).unit == "patients"


def test_neither_names_nor_their_order_decide_anything(write_folder):
    root = write_folder({"a": 10, "b": 10})
    first = load(str(root), 5, seed=0)
    moved = shutil.copytree(root, root.with_name("moved"))
    for number in range(10):
        (moved / "a" / f"{number:03d}.png").rename(moved / "a" / f"x{9 - number}.png")
    second = load(str(moved), 5, seed=0)
    assert second.fingerprint == first.fingerprint
    assert second.frame["split"].tolist() == first.frame["split"].tolist()
    everything = np.arange(20)
    assert np.array_equal(second.images(everything), first.images(everything))


def test_the_fingerprint_follows_labels_and_splits_but_not_names(write_folder):
    root = write_folder({"a": 10, "b": 10})
    first = load(str(root), 5, seed=0)
    assert load(str(root), 4, seed=0).fingerprint == first.fingerprint
    assert load(str(root), 5, seed=1).fingerprint != first.fingerprint
    moved = shutil.copytree(root, root.with_name("moved"))
    (moved / "a" / "000.png").rename(moved / "a" / "0000.png")
    assert load(str(moved), 5, seed=0).fingerprint == first.fingerprint
    (moved / "b").rename(moved / "c")
    assert load(str(moved), 5, seed=0).fingerprint != first.fingerprint


def test_an_unreadable_image_is_refused_by_name_or_skipped(write_folder):
    root = write_folder({"a": 10, "b": 10})
    (root / "a" / "003.png").write_bytes(b"")
    with pytest.raises(MedtlError, match=r"1 of 20 images .*a/003.png: the file is empty"):
        load(str(root), 5, seed=0)
    dataset = load(str(root), 5, seed=0, reading=Reading(unreadable="skip"))
    assert len(dataset.labels) == len(dataset.frame) == 19
    assert "a/003.png" not in set(dataset.frame["path"])
    assert any("a/003.png" in note and "skipped" in note for note in dataset.notes)
    readable = square(decode((root / dataset.frame["path"][5]).read_bytes()), 5)
    assert np.array_equal(dataset.images(np.array([5]))[0], readable)


def test_a_class_that_is_left_without_readable_images_is_refused(write_folder):
    root = write_folder({"a": 10, "b": 3})
    for number in range(3):
        (root / "b" / f"{number:03d}.png").write_bytes(b"x")
    with pytest.raises(MedtlError, match="no image of class b"):
        load(str(root), 5, seed=0, reading=Reading(unreadable="skip"))


def test_one_image_under_two_labels_is_refused_unless_allowed(write_folder):
    root = write_folder({"a": 10, "b": 10})
    shutil.copy(root / "a" / "003.png", root / "b" / "copy.png")
    with pytest.raises(MedtlError, match=r"two labels \(a/003.png and b/copy.png\)"):
        load(str(root), 5, seed=0)
    dataset = load(str(root), 5, seed=0, reading=Reading(duplicates="allow"))
    twins = dataset.frame[dataset.frame["content"].duplicated(keep=False)]
    assert len(twins) == 2
    assert twins["split"].nunique() == 1
    assert any("kept as they are" in note for note in dataset.notes)


def test_copies_under_one_label_never_cross_a_drawn_split(write_folder):
    root = write_folder({"a": 10, "b": 10})
    for number in range(10):
        shutil.copy(root / "a" / f"{number:03d}.png", root / "a" / f"copy{number}.png")
    for seed in range(5):
        frame = load(str(root), 5, seed=seed).frame
        assert frame.groupby("content")["split"].nunique().max() == 1


def test_copies_across_a_given_split_are_refused(write_folder):
    root = write_folder({f"{split}/{kind}": 5 for split in ("train", "test") for kind in "ab"})
    shutil.copy(root / "train/a/001.png", root / "test/a/copy.png")
    with pytest.raises(MedtlError, match=r"in two splits .*train/a/001.png"):
        load(str(root), 5, seed=0)


def test_what_was_drawn_is_noted(write_folder):
    root = write_folder({f"{split}/{kind}": 10 for split in ("train", "test") for kind in "ab"})
    notes = load(str(root), 5, seed=0).notes
    assert "valid drawn by image (train 14, valid 6, test 20 images)" in notes


def test_data_for_evaluation_alone_has_an_empty_train(write_folder):
    dataset = load(str(write_folder({"test/a": 3, "test/b": 3})), 5, seed=0)
    assert {name: len(rows) for name, rows in dataset.splits.items()} == {
        "train": 0,
        "valid": 0,
        "test": 6,
    }
    line = "no images are for training: this data can only be evaluated on"
    assert line in dataset.notes
