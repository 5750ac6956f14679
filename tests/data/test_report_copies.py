"""Near copies are found among images that look alike, and images that look alike are no copies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.dataset import load
from medtl.data.phantoms import write_chest_phantoms
from medtl.data.reading import Reading
from medtl.data.report import copies, data_facts
from medtl.data.report.copies import copies_of, with_copies
from medtl.data.report.images import Images, images_of
from medtl.data.report.likeness import likeness, perceptual_hashes
from medtl.data.report.looks import looks_of

SIDE = 96
ALLOW = Reading(duplicates="allow")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder of phantoms of 40 patients, with its `labels.csv`."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_chest_phantoms(folder, seed=5, patients=40)
    return folder


@pytest.fixture
def phantoms(drawn, tmp_path) -> Path:
    """A copy of that folder, to be added to."""
    return shutil.copytree(drawn, tmp_path / "scans")


def pairs(folder: Path) -> tuple[Images, pd.DataFrame]:
    images = images_of(load(str(folder / "labels.csv"), SIDE, 0, ALLOW))
    return images, copies_of(images, looks_of(images)).pairs


def added(folder: Path, copies: dict[str, str]) -> None:
    """Gives each file (the values) the label of the file of which it is a copy (the keys)."""
    table = pd.read_csv(folder / "labels.csv", dtype=str).set_index("path")
    rows = [f"{new},{table['label'][old]},copied" for old, new in copies.items()]
    with open(folder / "labels.csv", "a", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")


def names(images: Images, found: pd.DataFrame) -> set[frozenset[str]]:
    paths = images.frame["path"].to_numpy()
    return {frozenset(paths[list(pair)]) for pair in found[["first", "second"]].to_numpy()}


def test_phantoms_are_no_copies_of_each_other(phantoms):
    _, found = pairs(phantoms)
    assert found.empty


def test_changed_copies_are_found_and_nothing_else(phantoms):
    originals = sorted(file.name for file in phantoms.glob("*.png"))[:5]
    made = {}
    for number, name in enumerate(originals):
        image = Image.open(phantoms / name)
        cut = image.crop((2, 1, SIDE - 1, SIDE - 1)).resize((SIDE, SIDE))
        brighter = Image.fromarray((np.asarray(image) * 0.9 + 20).astype(np.uint8))
        small = image.resize((70, 60), Image.Resampling.BILINEAR)
        kinds = (image, small, brighter, cut, image)
        made[name] = f"copy{number}" + (".jpg" if number == 0 else ".png")
        kinds[number].save(phantoms / made[name], **({"quality": 60} if number == 0 else {}))
    added(phantoms, made)
    images, found = pairs(phantoms)
    assert names(images, found) == {frozenset(pair) for pair in made.items()}
    assert sorted(found["kind"]) == ["identical", *["near"] * 4]
    assert sorted(found["group"]) == [1, 2, 3, 4, 5]
    assert (found.loc[found["kind"] == "near", "alike"] < 1).all()


def test_a_group_of_many_copies_is_tied_by_one_pair_less(phantoms):
    name = "p0003_0.png"
    for quality in (90, 70, 50):
        Image.open(phantoms / name).save(phantoms / f"q{quality}.jpg", quality=quality)
        added(phantoms, {name: f"q{quality}.jpg"})
    shutil.copy(phantoms / name, phantoms / "again.png")
    added(phantoms, {name: "again.png"})
    images, found = pairs(phantoms)
    assert len(found) == 4
    assert found["group"].tolist() == [1] * 4
    joined = set().union(*names(images, found))
    assert joined == {name, "again.png", "q90.jpg", "q70.jpg", "q50.jpg"}
    numbers = with_copies(found, len(images.frame))
    assert len(set(numbers.tolist())) == len(images.frame) - 4
    assert len(set(numbers[images.frame["path"].isin(joined)].tolist())) == 1


def test_blank_images_are_no_near_copies(write_folder):
    root = write_folder({"a": 6, "b": 6})
    for number, grey in enumerate((0, 100, 101)):
        Image.new("L", (7, 6), grey).save(root / "a" / f"blank{number}.png")
    images = images_of(load(str(root), 32, 0, ALLOW))
    looks = looks_of(images)
    assert sorted(images.frame["path"][looks.blank]) == [f"a/blank{n}.png" for n in range(3)]
    assert copies_of(images, looks).pairs.empty


def test_a_hash_hardly_changes_with_brightness_and_rounding():
    random = np.random.default_rng(0)
    coarse = random.random((6, 16, 16), dtype=np.float32).repeat(4, axis=1).repeat(4, axis=2)
    brighter = np.round(255 * (coarse * 0.8 + 0.1)) / 255
    hashes, again = perceptual_hashes(coarse), perceptual_hashes(brighter)
    assert hashes.shape == (6, 64)
    apart = (hashes[:, None] != again[None]).sum(axis=2)
    assert apart.diagonal().max() <= 8
    assert apart[~np.eye(6, dtype=bool)].min() > 16
    assert np.array_equal(perceptual_hashes(coarse * 0.5 + 0.25), hashes)


def test_among_many_that_look_alike_nearer_hashes_are_asked_for(phantoms, monkeypatch):
    images = images_of(load(str(phantoms / "labels.csv"), SIDE, 0))
    looks = looks_of(images)
    assert copies_of(images, looks).bits_apart == copies.BITS_APART
    hashes = perceptual_hashes(looks.thumbnails)
    apart = (hashes[:, None] != hashes[None]).sum(axis=2)[np.triu_indices(len(hashes), 1)]
    most = int((apart <= 6).sum())
    assert 0 < most < (apart <= 8).sum()
    monkeypatch.setattr(copies, "LOOKS", 0)
    monkeypatch.setattr(copies, "FEW_LOOKS", most)
    assert 6 <= copies_of(images, looks).bits_apart < 8
    monkeypatch.setattr(copies, "LOOKS", -1)
    monkeypatch.setattr(copies, "FEW_LOOKS", -1)
    assert copies_of(images, looks).bits_apart == -1


def test_what_was_not_looked_at_is_told(phantoms, monkeypatch):
    dataset = load(str(phantoms / "labels.csv"), SIDE, 0)
    monkeypatch.setattr(copies, "LOOKS", 0)
    monkeypatch.setattr(copies, "FEW_LOOKS", 2)
    *notes, last = data_facts(dataset, seed=0).notes
    assert tuple(notes) == dataset.notes
    assert re.search(r"by at most \d of 64 bits, not by 8", last)


def test_likeness_is_one_of_an_image_with_itself_and_follows_a_shift():
    random = np.random.default_rng(0)
    noise = random.random((4, 66, 66)).astype(np.float32)
    whole = noise[:, 1:65, 1:65]
    assert likeness(whole, whole) == pytest.approx(np.ones(4), abs=1e-4)
    assert likeness(whole, noise[:, :64, 2:]).min() > 0.8
    assert np.abs(likeness(whole, whole[::-1])).max() < 0.4
