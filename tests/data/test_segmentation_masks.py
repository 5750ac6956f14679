"""Masks named after an image are not samples; doubtful ones give a note."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medtl.data.manifest import read_table
from medtl.data.sources.segmentation_masks import told_apart
from medtl.errors import MedtlError


@pytest.mark.parametrize(
    "name",
    [
        "benign (1)_mask", "benign (1)_mask_1", "mask_benign (1)", "benign (1)_segmentation",
        "benign (1)-seg", "benign (1).gt", "Benign (1)_Mask", "benign (1)_lung_mask",
        "benign (1)_ground_truth", "benign (1) mask",
    ],
)  # fmt: skip
def test_a_mask_lies_beside_its_image(name):
    paths = ["a/benign (1).png", f"a/{name}.gif", "a/benign (2).png"]
    found = told_apart(paths, 1)
    assert (found.masks, found.doubtful) == ([paths[1]], [])
    assert found.images == [paths[0], paths[2]]


@pytest.mark.parametrize("folder", ["masks", "lung masks", "Ground_Truth", "GT", "labels_png"])
@pytest.mark.parametrize("beside", ["a/images/", "a/"])
def test_a_folder_of_masks_lies_beside_the_images_of_its_class(folder, beside):
    paths = [f"{beside}{n}.png" for n in range(4)] + [f"a/{folder}/{n}_mask.png" for n in range(4)]
    found = told_apart(paths, 1)
    assert (found.images, found.masks) == (paths[:4], paths[4:])
    in_split = told_apart([f"train/{path}" for path in paths], 2)
    assert len(in_split.masks) == 4


@pytest.mark.parametrize(
    ("paths", "doubtful"),
    [
        (["a/x_mask.png", "a/y.png"], ["a/x_mask.png"]),
        (["a/masks/1.png", "a/images/2.png", "b/1.png"], ["a/masks/1.png"]),
        (["with_mask/with_mask_1.png", "without_mask/1.png"], ["with_mask/with_mask_1.png"]),
        (["labels/1.png", "images/1.png"], []),
        (["a/unmasked.png", "a/masked.png", "a/un.png"], []),
    ],
)
def test_what_is_no_mask_for_certain_is_a_sample(paths, doubtful):
    found = told_apart(paths, 1)
    assert (found.images, found.masks, found.doubtful) == (paths, [], doubtful)


def two_valued(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 2, (6, 7), dtype=np.uint8) * 255
    Image.fromarray(values).save(file)


def test_masks_are_left_out_with_a_line(write_folder):
    root = write_folder({"a": 2, "b/images": 2})
    two_valued(root / "a" / "000_mask.png", 1)
    two_valued(root / "b" / "masks" / "001.png", 2)
    two_valued(root / "b" / "images" / "9_mask.png", 3)
    table = read_table(str(root))
    assert len(table.frame) == 5
    assert "masks of images left out: 2 (a/000_mask.png, b/masks/001.png)" in table.notes
    assert any("lies beside them: taken as samples" in note for note in table.notes)


def test_a_folder_of_masks_beside_the_classes_is_no_class(write_folder):
    root = write_folder({"a": 2, "b": 2})
    for kind in "ab":
        for number in range(2):
            two_valued(root / "masks" / kind / f"{number:03d}.png", number)
    table = read_table(str(root))
    assert table.classes == ("a", "b")
    assert any(note.startswith("masks of images left out: 4") for note in table.notes)


def test_a_folder_of_images_and_one_of_masks_are_no_two_classes(write_folder):
    root = write_folder({"images": 3})
    for number in range(3):
        two_valued(root / "masks" / f"{number:03d}.png", number)
    with pytest.raises(MedtlError, match=r"of one class, images; .*masks of images left out: 3"):
        read_table(str(root))


def test_a_class_may_be_called_as_masks_are(write_folder):
    assert read_table(str(write_folder({"images": 2, "labels": 2}))).classes == ("images", "labels")
    assert len(read_table(str(write_folder({"mask": 2, "no mask": 2}))).frame) == 8
