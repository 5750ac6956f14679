"""Near copies are found among images that look alike, and images that look alike are no copies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.copies import search
from benchmarks.fundus import draw_eye
from medtl.data.loading import load
from medtl.data.quality import near_duplicates
from medtl.data.quality.checks import data_facts
from medtl.data.quality.near_duplicates import Details, Signatures, copies_of, with_copies
from medtl.data.quality.thumbnails import ImageRows, images_of, looks_of
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.settings.data import Reading

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


def pairs(folder: Path) -> tuple[ImageRows, pd.DataFrame]:
    images = images_of(load(str(folder / "labels.csv"), SIDE, 0, ALLOW))
    return images, copies_of(images, looks_of(images)).pairs


def added(folder: Path, copies: dict[str, str]) -> None:
    """Gives each file (the values) the label of the file of which it is a copy (the keys)."""
    table = pd.read_csv(folder / "labels.csv", dtype=str).set_index("path")
    rows = [f"{new},{table['label'][old]},copied" for old, new in copies.items()]
    with open(folder / "labels.csv", "a", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")


def names(images: ImageRows, found: pd.DataFrame) -> set[frozenset[str]]:
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


def test_turned_and_mirrored_copies_are_found_and_nothing_else(phantoms):
    originals = sorted(file.name for file in phantoms.glob("*.png"))[:8]
    steps = [*Image.Transpose, Image.Transpose.ROTATE_90]
    made = {name: f"copy{number}.jpg" for number, name in enumerate(originals)}
    for (name, copy), step in zip(made.items(), steps, strict=True):
        Image.open(phantoms / name).transpose(step).save(phantoms / copy, quality=80)
    added(phantoms, made)
    images, found = pairs(phantoms)
    assert names(images, found) == {frozenset(pair) for pair in made.items()}
    assert sorted(found["kind"]) == ["mirrored"] * 4 + ["turned"] * 4


def test_a_symmetric_image_and_another_one_are_no_copies():
    random = np.random.default_rng(3)
    grey = random.random((40, 12, 12)).astype(np.float32)
    symmetric = np.concatenate([grey, grey[:, :, ::-1]], axis=2)  # as anatomy is
    stored = [
        np.asarray(Image.fromarray((255 * each).astype(np.uint8)).resize((64, 64)))
        for each in symmetric
    ]
    rows = several(np.stack(stored)[:, None])
    assert copies_of(rows, looks_of(rows)).pairs.empty


def several(stored: np.ndarray) -> ImageRows:
    """Rows of images [N, C, S, S] of one label."""
    count = len(stored)
    return ImageRows(
        frame=pd.DataFrame({"content": [each.tobytes() for each in stored]}),
        labels=np.zeros(count, np.int64),
        patients=np.arange(count),
        rows=np.arange(count),
        array=stored,
    )


def test_among_more_images_than_that_no_turned_copies_are_looked_for(phantoms, monkeypatch):
    name = "p0003_0.png"
    Image.open(phantoms / name).rotate(180).save(phantoms / "turned.png")
    added(phantoms, {name: "turned.png"})
    monkeypatch.setattr(near_duplicates, "MOST_TURNED", 3)
    facts = data_facts(load(str(phantoms / "labels.csv"), SIDE, 0, ALLOW), 0)
    assert facts.copies.empty
    assert any("turned and mirrored copies were not looked for" in note for note in facts.notes)


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


def test_different_eyes_in_one_frame_are_no_copies_and_changed_ones_are():
    random = np.random.default_rng(0)
    eyes = [draw_eye(random, SIDE) for _ in range(60)]
    found, _ = search(eyes, SIDE, each=4, seed=0)
    assert found.others.empty
    kinds = ("recompressed", "halved", "brightened")
    assert [found.recall[kind] for kind in kinds] == [1, 1, 1]
    assert found.recall["cut"] >= 0.5


def test_eyes_of_several_cameras_are_no_copies():
    random = np.random.default_rng(1)
    found, _ = search([draw_eye(random, SIDE, cameras=3) for _ in range(60)], SIDE, 4, seed=0)
    assert len(found.others) <= 1
    assert found.recall.pop("all but halved") >= 0.5
    assert set(found.recall.values()) == {1.0}


def test_signatures_of_different_images_are_near_orthogonal_whatever_they_share(frames):
    images, again = frames[:60], frames[:60] * 0.8 + 0.1
    signatures = Signatures.fit(images).of(images)
    products = (signatures @ signatures.T)[np.triu_indices(60, 1)]
    assert np.abs(products).mean() < 0.2
    assert np.abs(products.mean()) < 0.05
    assert (Signatures.fit(images).of(again) * signatures).sum(axis=1).min() > 0.99
    plain = images.reshape(60, -1)
    assert np.corrcoef(plain)[np.triu_indices(60, 1)].min() > 0.8


def test_details_on_which_all_agree_are_no_likeness(frames):
    details = Details.fit(frames[:30], frames[30:60])
    assert np.abs(details.alike(frames[60:90], frames[90:])).max() < 0.5
    assert details.alike(frames, frames) == pytest.approx(np.ones(120), abs=1e-3)
    assert details.expected.max() > 0.6


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Draws 120 images of smooth noise in one dominant bright frame: [120, 64, 64]."""
    random = np.random.default_rng(0)
    noise = random.random((120, 16, 16), np.float32).repeat(4, axis=1).repeat(4, axis=2)
    y, x = np.mgrid[:64, :64] - 31.5
    frame = (np.hypot(x, y) < 28).astype(np.float32)
    return frame * (0.7 + 0.2 * (noise - 0.5))


def test_details_follow_a_shift():
    random = np.random.default_rng(0)
    noise = random.random((40, 66, 66)).astype(np.float32)
    whole = noise[:, 1:65, 1:65]
    details = Details.fit(whole[:20], whole[20:])
    assert details.alike(whole, noise[:, :64, 2:]).min() > 0.8
    assert np.abs(details.alike(whole, whole[::-1])).max() < 0.3


def test_two_of_four_images_can_be_copies(drawn, tmp_path):
    originals = ["p0001_0.png", "p0002_0.png", "p0003_0.png"]
    for name in originals:
        shutil.copy(drawn / name, tmp_path)
    Image.open(drawn / originals[0]).save(tmp_path / "copy.jpg", quality=60)
    table = pd.DataFrame({"path": [*originals, "copy.jpg"], "label": list("abab"), "split": "test"})
    table.to_csv(tmp_path / "labels.csv", index=False)
    images, found = pairs(tmp_path)
    assert names(images, found) == {frozenset((originals[0], "copy.jpg"))}


def test_among_many_that_look_alike_nearer_signatures_are_asked_for(phantoms, monkeypatch):
    images = images_of(load(str(phantoms / "labels.csv"), SIDE, 0))
    looks = looks_of(images)
    assert copies_of(images, looks).nearest == near_duplicates.NEAR_SIGNATURES
    monkeypatch.setattr(near_duplicates, "LOOKS", 0)
    monkeypatch.setattr(near_duplicates, "FEW_LOOKS", 2)
    fitted = Signatures.fit(looks.thumbnails)
    signatures = fitted.of(looks.thumbnails)
    products = (signatures @ signatures.T)[np.triu_indices(len(signatures), 1)]
    nearest = copies_of(images, looks).nearest
    assert (products > near_duplicates.NEAR_SIGNATURES).sum() > 2
    assert (products >= nearest).sum() == 2
    monkeypatch.setattr(near_duplicates, "FEW_LOOKS", 0)
    assert copies_of(images, looks).nearest > products.max()


def test_what_was_not_looked_at_is_told(phantoms, monkeypatch):
    dataset = load(str(phantoms / "labels.csv"), SIDE, 0)
    monkeypatch.setattr(near_duplicates, "LOOKS", 0)
    monkeypatch.setattr(near_duplicates, "FEW_LOOKS", 2)
    *notes, last = data_facts(dataset, seed=0).notes
    assert tuple(notes) == dataset.notes
    assert re.search(r"coarse pictures are alike by 0\.\d\d, not by 0\.5", last)
