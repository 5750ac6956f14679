"""Scores without test images that have an identical training image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.scored_cases import DecidedCases
from medtl.evaluation.scores_without_duplicates import scores_without_duplicates
from medtl.settings.data import Reading


def images(root: Path, copies: int) -> Dataset:
    """Writes two classes, ten images per split; `copies` test images are also in train or valid."""
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for kind in "ab":
            folder = root / split / kind
            folder.mkdir(parents=True)
            for number in range(10):
                if split == "test" and number < copies:
                    source = root / ("train", "valid")[number % 2] / kind / f"{number}.png"
                    pixels = np.asarray(Image.open(source))
                else:
                    pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return load(str(root), 16, 0, Reading(duplicates="allow"))


def decided(dataset: Dataset) -> DecidedCases:
    """The test split with correct probabilities for copies and random ones for others."""
    test = dataset.splits["test"]
    second = np.random.default_rng(1).random(len(test))
    copies = dataset.frame["content"].duplicated(keep=False).to_numpy()[test]
    second[copies] = dataset.labels[test][copies]
    probabilities = np.column_stack([1 - second, second])
    decisions = (second > 0.5).astype(int)
    labels, groups = dataset.labels[test], dataset.groups[test]
    return DecidedCases(labels, groups, dataset.classes, probabilities, decisions)


def test_scores_without_copies_are_those_of_the_others(tmp_path):
    dataset = images(tmp_path / "scans", copies=4)
    cases = decided(dataset)
    found = scores_without_duplicates(dataset, cases, seed=0)
    names = dataset.frame["path"].to_numpy()[dataset.splits["test"]]
    others = np.array([int(Path(name).stem) >= 4 for name in names])
    assert found.duplicates == 8
    expected, everything = (
        measure(
            each.labels,
            each.probabilities,
            each.groups,
            each.classes,
            0,
            decisions=each.decisions,
        ).summary
        for each in (cases.among(others), cases)
    )
    assert found.scores == expected
    assert expected["auroc"].value < everything["auroc"].value
    assert found.line().startswith("8 of 20 test images have an identical copy in train or valid")
    assert f"auroc {expected['auroc']}" in found.line()


def test_without_copies_there_are_no_scores(tmp_path):
    dataset = images(tmp_path / "scans", copies=0)
    assert scores_without_duplicates(dataset, decided(dataset), seed=0) is None


def test_if_all_are_copies_no_scores_are_left(tmp_path):
    dataset = images(tmp_path / "scans", copies=10)
    found = scores_without_duplicates(dataset, decided(dataset), seed=0)
    assert not found.scores
    assert found.line().endswith("no other image is left to be scored")
