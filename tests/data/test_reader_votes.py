"""Readers who disagree: training fits their shares, all that is measured takes the majority."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.data.dataset import Dataset, in_order_of, without
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.pipeline.scoring import indices_of
from medtl.settings.data import Reading

VOTES = ["xxx", "yyy", "xxy", "yyx", "xy", "xxyy", "xz", "x", "y"] * 4
"""Labels of the readers of each image, of a patient each."""


def write(folder: Path, votes: list[str], images: int = 1) -> str:
    """Writes an image a text, and a row a label in it; returns the table.

    A patient has `images` of them, not side by side.
    """
    patients = -(-len(votes) // images)
    random, rows = np.random.default_rng(0), ["path,label,patient,split"]
    for number, given in enumerate(votes):
        pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows += [f"{number}.png,{label},p{number % patients}," for label in given.split("/")]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return str(folder / "labels.csv")


def read(data: str, readers: str, **reading: object) -> Dataset:
    return load(data, 8, 0, Reading(readers=readers, **reading))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("clinic"), ["/".join(each) for each in VOTES])


def number_of(dataset: Dataset) -> np.ndarray:
    """Returns the number of each image, of its file's name."""
    return dataset.frame["path"].str.removesuffix(".png").astype(int).to_numpy()


def test_shares_are_those_of_the_readers(table):
    soft = read(table, "soft")
    assert soft.classes == ("x", "y")
    for number, shares in zip(number_of(soft), soft.shares, strict=True):
        votes = VOTES[number]
        expected = [votes.count(name) / len(votes) for name in soft.classes]
        np.testing.assert_allclose(shares, expected, rtol=1e-6)
    assert any("4 labels of readers count nowhere" in note and "z" in note for note in soft.notes)


@pytest.mark.parametrize("seed", range(2))
def test_splits_are_those_of_the_majority(tmp_path, seed):
    votes = np.random.default_rng(seed).permutation(VOTES * 2)
    data = write(tmp_path, ["/".join(each) for each in votes], images=3)
    soft, plain = read(data, "soft"), read(data, "majority")
    own = soft.frame[["path", "label", "split"]][soft.measured].reset_index(drop=True)
    assert own.equals(plain.frame[["path", "label", "split"]])
    assert plain.shares is None
    # patients stay in one split, and ties of those in valid and test are left out
    assert soft.frame.groupby("patient")["split"].nunique().max() == 1
    left_out = len(votes) - len(soft.frame)
    assert left_out
    assert any(f"{left_out} of valid and test are left out" in note for note in soft.notes)


def test_images_without_a_majority_train_and_are_not_scored(table):
    soft, plain = read(table, "soft"), read(table, "majority")
    own = soft.frame[["path", "label", "split"]][soft.measured].reset_index(drop=True)
    assert own.equals(plain.frame[["path", "label", "split"]])
    tied = soft.frame[~soft.measured]
    assert {VOTES[number] for number in number_of(soft)[~soft.measured]} == {"xy", "xxyy", "xz"}
    assert len(tied) == 12
    assert (tied["split"] == "train").all()
    (note,) = (note for note in soft.notes if note.startswith("readers=soft: "))
    assert "readers of 20 of 36 images disagree" in note
    assert "12 images without one train and are not scored, 0 of valid and test are left" in note
    assert len(indices_of(soft, "all")) == len(plain.labels)


def test_the_key_of_the_data_has_the_shares_and_the_fingerprint_has_not(tmp_path):
    found = []
    for name, votes in (("two", "xxy"), ("three", "xxxy"), ("one", "xxy")):
        (tmp_path / name).mkdir()
        rows = ["/".join(each) for each in [votes, *"xxyyxyxyxy"]]
        found.append(read(write(tmp_path / name, rows), "soft"))
    assert len({each.fingerprint for each in found}) == 1
    assert found[0].identity == found[2].identity != found[1].identity
    # without shares the key is that of earlier releases
    agreed = read(write(tmp_path, list("xxyyxyxyxy")), "soft")
    assert agreed.shares is None
    assert agreed.identity == read(write(tmp_path, list("xxyyxyxyxy")), "").identity
    assert any("readers=soft is not used" in note for note in agreed.notes)


def test_an_image_without_a_majority_stays_with_its_patient(tmp_path):
    votes = ["x", "y", "x", "y", "x", "y", "x", "y", "x/y", "x/y"]
    data = write(tmp_path, votes)
    text = Path(data).read_text()
    splits = ["train", "train", "train", "train", "valid", "valid", "test", "test", "", "train"]
    for number, split in enumerate(splits):
        text = text.replace(f",p{number},\n", f",p{number},{split}\n")
    Path(data).write_text(text.replace(",p8,", ",p6,"))
    soft = read(data, "soft")
    assert number_of(soft)[~soft.measured].tolist() == [9]
    assert any("1 images without one train" in n and "1 of valid and test are" in n
               for n in soft.notes)  # fmt: skip


def test_findings_count_the_readers_who_know_them(tmp_path):
    votes = ["A|B/A", "A|?B/B", "No Finding/A", "?A/?A", "A/A/B", "B", "No Finding"] * 3
    soft = read(write(tmp_path, votes), "soft")
    assert soft.classes == ("A", "B")
    expected = [[1, 0.5], [0.5, 1], [0.5, 0], [-1, 0], [2 / 3, 1 / 3], [0, 1], [0, 0]]
    labels = [[1, -1], [-1, 1], [-1, 0], [-1, 0], [1, 0], [0, 1], [0, 0]]
    for number, shares, codes in zip(number_of(soft), soft.shares, soft.labels, strict=True):
        np.testing.assert_allclose(shares, expected[number % 7], rtol=1e-6)
        assert codes.tolist() == labels[number % 7]
    assert soft.measured.all()
    np.testing.assert_array_equal(soft.labels, read(write(tmp_path, votes), "majority").labels)


def test_two_classes_of_grades_are_the_share_of_the_positive_ones(tmp_path):
    votes = ["0/1/2", "2/3/0", "0/0/3", "1/1", "0/0"] * 4
    soft = read(write(tmp_path, votes), "soft", positive="2,3")
    assert soft.classes == ("negative", "2 or 3")
    expected = [1 / 3, 2 / 3, 1 / 3, 0, 0]
    for number, shares, label in zip(number_of(soft), soft.shares, soft.labels, strict=True):
        np.testing.assert_allclose(shares[1], expected[number % 5], rtol=1e-6)
        assert label == (expected[number % 5] > 0.5)


def test_folds_test_no_image_without_a_majority(table):
    soft = read(table, "soft", folds=3, holdout=0.0)
    folds = draw_folds(soft, 3, 0)
    tested = np.sort(np.concatenate([folds.splits(number)["test"] for number in range(3)]))
    np.testing.assert_array_equal(tested, np.flatnonzero(soft.measured))
    np.testing.assert_array_equal(tested, folds.tested)
    for number in range(3):
        parts = folds.splits(number)
        assert soft.measured[parts["valid"]].all()
        assert not soft.measured[parts["train"]].all()


def test_other_orders_and_fewer_classes_keep_the_columns(table):
    soft = read(table, "soft")
    turned = in_order_of(soft, ("y", "x"))
    np.testing.assert_array_equal(turned.shares, soft.shares[:, ::-1])
    np.testing.assert_array_equal(turned.measured, soft.measured)
    assert without(soft, ["y"]).shares.shape == (int((soft.labels == 0).sum()), 1)


def test_readers_of_the_images_of_a_case_are_the_same(tmp_path):
    write(tmp_path, ["x"] * 8)
    rows = ["path,label,case,modality"]
    for number in range(8):
        readers = "xxy" if number == 0 else "xy"[number // 2 % 2] * 3
        rows += [f"{number}.png,{each},c{number // 2},{'ab'[number % 2]}" for each in readers]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(MedtlError, match="another labels_of_readers than their case"):
        read(str(tmp_path / "labels.csv"), "soft")


@pytest.mark.parametrize("readers", ["majority", "soft"])
def test_forms_of_one_label_count_together(tmp_path, readers):
    data = write(tmp_path, ["1/1.0/0", "0/0.0/1", "0/0", "1/1", "x /x/X"] * 4)
    found = read(data, readers)
    assert found.classes == ("0", "1", "x")
    if readers == "soft":
        values = np.unique(found.shares)
        np.testing.assert_allclose(values, [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    notes = [note for note in found.notes if "differ only in case" in note]
    assert len(notes) == 1
    assert any("labels that are one number are one" in note for note in found.notes)
