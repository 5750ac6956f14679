"""Images with any number of findings: their labels, their splits, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from medtl.data.label_encoding import encode_findings, stratification_key, two_classes
from medtl.data.loading import load
from medtl.data.manifest import read_table
from medtl.data.quality.checks import data_facts
from medtl.data.sources.phantoms.datasets import write_finding_phantoms
from medtl.data.splits import nested_share
from medtl.errors import MedtlError
from medtl.inference.decisions import findings_text
from medtl.settings.data import Reading

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, write_image) -> Write:
    """`write(labels, **columns)`: a CSV of images with these labels."""

    def written(labels: list[str], **columns: list[str]) -> str:
        for seed in range(len(labels)):
            write_image(tmp_path / "ward" / f"{seed}.png", seed)
        names = [f"{seed}.png" for seed in range(len(labels))]
        frame = pd.DataFrame({"path": names, "label": labels, **columns})
        frame.to_csv(tmp_path / "ward" / "labels.csv", index=False)
        return str(tmp_path / "ward" / "labels.csv")

    return written


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sets") / "ward"
    folder.mkdir()
    write_finding_phantoms(folder, seed=3, patients=60, image_size=32)
    return str(folder / "labels.csv")


def test_one_text_for_equal_findings(write):
    table = read_table(write(["Nodule|Mass", "Mass | Nodule|", "normal", "?Edema|Mass", "?Mass"]))
    assert table.multi_label
    assert table.classes == ("Edema", "Mass", "Nodule")
    texts = ["Mass|Nodule", "Mass|Nodule", "No Finding", "Mass|?Edema", "?Mass"]
    assert table.frame["label"].tolist() == texts
    labels = encode_findings(table.frame["label"], table.classes)
    assert labels.dtype == np.int8
    assert labels.tolist() == [[0, 1, 1], [0, 1, 1], [0, 0, 0], [-1, 1, 0], [0, -1, 0]]
    assert findings_text([False, True, True], table.classes) == "Mass|Nodule"
    assert findings_text([False] * 3, table.classes) == "No Finding"


def test_labels_without_a_second_one_stay_classes(write):
    table = read_table(write(["Mass", "Nodule", "Mass", "Nodule"]))
    assert not table.multi_label


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("No Finding|Mass", "1 row has a finding beside the word for none .*row 3"),
        ("Mass|?Mass", "a finding that is there and unknown"),
        ("Mass|?", r"a \? without a finding .*write \?FINDING"),
        ("?normal", r"a \? without a finding"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(write, label, reason):
    with pytest.raises(MedtlError, match=reason) as refusal:
        read_table(write(["Mass|Nodule", label, "normal"]))
    assert "\n" not in str(refusal.value)


def test_what_is_unknown_is_neither_positive_nor_negative(write):
    labels = pd.Series(["Mass", "?Mass", "Edema|?Mass", "Mass|?Edema", "No Finding"])
    answers = ["Mass", "", "", "Mass", "negative"]
    assert two_classes("ward", labels, "Mass").fillna("").tolist() == answers
    answers = ["positive", "", "positive", "positive", "negative"]
    assert two_classes("ward", labels, "any").fillna("").tolist() == answers
    table = read_table(write(labels.tolist() * 2), Reading(positive="Mass"))
    assert len(table.frame) == 6
    assert table.notes == ("4 of 10 images left out: it is unknown whether they are positive",)


def test_splits_are_by_patient_and_give_every_finding_its_share(phantoms):
    dataset = load(phantoms, 8, seed=0)
    assert dataset.classes == ("diffuse", "focal", "large heart")
    assert dataset.multi_label
    assert (dataset.labels == -1).any()
    assert dataset.notes[0].startswith("multi-label: 3 findings, of which an image has any number")
    assert (dataset.frame.groupby("patient")["split"].nunique() == 1).all()
    whole = dataset.counts(np.arange(len(dataset.labels)))
    for name in ("valid", "test"):
        share = dataset.counts(dataset.splits[name]) / whole
        assert np.all((share > 0.08) & (share < 0.25))
    again = load(phantoms, 8, seed=0)
    assert again.fingerprint == dataset.fingerprint
    assert load(phantoms, 8, seed=1).fingerprint != dataset.fingerprint


def test_findings_that_cannot_be_learned_are_left_out_and_named(write):
    labels = ["Mass|Nodule", "Mass", "Nodule", "No Finding", "Edema|Mass", "No Finding"] * 2
    split = ["train"] * 4 + ["test", "test"] + ["train"] * 4 + ["valid", "valid"]
    dataset = load(write([*labels, "?Cyst|Mass"], split=[*split, "train"]), 8, seed=0)
    assert dataset.classes == ("Mass", "Nodule")
    left_out = "findings left out, in which training images do not differ: Cyst, Edema"
    assert left_out in dataset.notes
    alike = write(["Mass|Nodule"] * 4 + ["normal"] * 2, split=["train"] * 4 + ["test", "valid"])
    with pytest.raises(MedtlError, match="no finding that some images of the train split have"):
        load(alike, 8, seed=0)


def test_conflicting_labels_of_one_image_are_found_whatever_their_order(write, write_image):
    file = Path(write(["Mass|Nodule", "Nodule|Mass", "Nodule", "No Finding"] * 3))
    write_image(file.parent / "1.png", 0)
    assert len(load(str(file), 8, 0, Reading(duplicates="allow")).labels) == 12
    write_image(file.parent / "2.png", 0)
    with pytest.raises(MedtlError, match="identical images under two labels"):
        load(str(file), 8, seed=0)


def test_shares_are_drawn_by_the_rarest_finding(phantoms):
    dataset = load(phantoms, 8, seed=0)
    train = dataset.splits["train"]
    rows = stratification_key(dataset.labels[train])
    small, large = (nested_share(rows, dataset.patients[train], each, 0) for each in (0.3, 0.6))
    assert set(small) < set(large)
    assert np.all(dataset.counts(train[small]) > 0)


def test_the_report_counts_each_finding_and_those_that_are_there_together(phantoms):
    dataset = load(phantoms, 32, seed=0)
    facts = data_facts(dataset, seed=0)
    there = dataset.labels == 1
    together = facts.together.set_index("finding")
    assert together.loc["focal", "diffuse"] == (there[:, 0] & there[:, 1]).sum()
    assert together.loc["diffuse", "alone"] == (there[:, 0] & (there.sum(axis=1) == 1)).sum()
    assert together["unknown"].sum() == (dataset.labels == -1).sum()
    counts = facts.counts.set_index(["class", "split"])
    in_test = there[dataset.splits["test"]]
    assert counts.loc[("large heart", "test"), "images"] == in_test[:, 2].sum()
    assert facts.sizes["images"].tolist() == [len(dataset.labels)]
    assert facts.shortcuts.labels.shape == dataset.labels.shape
