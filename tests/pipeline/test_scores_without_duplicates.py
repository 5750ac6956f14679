"""Scores without test images that have an identical training image."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from medtl.data.dataset import Dataset, load
from medtl.evaluation.confidence_intervals import measure
from medtl.pipeline.scores_without_duplicates import without_twins
from medtl.settings.training import Reading


def images(root: Path, twins: int) -> Dataset:
    """Writes two classes, ten images each per split, with `twins` test images also in train."""
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for kind in "ab":
            folder = root / split / kind
            folder.mkdir(parents=True)
            for number in range(10):
                if split == "test" and number < twins:
                    source = root / ("train", "valid")[number % 2] / kind / f"{number}.png"
                    pixels = np.asarray(Image.open(source))
                else:
                    pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return load(str(root), 16, 0, Reading(duplicates="allow"))


def answers(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Returns correct probabilities for twins, random ones for others, and decisions."""
    test = dataset.splits["test"]
    random = np.random.default_rng(1)
    second = random.random(len(test))
    learned = dataset.frame["content"].duplicated(keep=False).to_numpy()[test]
    second[learned] = dataset.labels[test][learned]
    return np.column_stack([1 - second, second]), (second > 0.5).astype(int)


def test_scores_without_twins_are_those_of_the_others(tmp_path):
    dataset = images(tmp_path / "scans", twins=4)
    probabilities, decisions = answers(dataset)
    with mlflow.start_run() as run:
        found = without_twins(dataset, probabilities, decisions, seed=0)
    logged = MlflowClient().get_run(run.info.run_id).data.metrics
    test = dataset.splits["test"]
    names = dataset.frame["path"].to_numpy()[test]
    others = np.array([int(Path(name).stem) >= 4 for name in names])
    assert found.twins == 8
    labels, groups = dataset.labels[test], dataset.groups[test]
    expected = measure(
        labels[others],
        probabilities[others],
        groups[others],
        dataset.classes,
        0,
        decisions=decisions[others],
    ).summary
    everything = measure(labels, probabilities, groups, dataset.classes, 0, decisions=decisions)
    assert logged["test_auroc_without_twins"] == pytest.approx(expected["auroc"].value)
    assert logged["test_auroc_without_twins_low"] == pytest.approx(expected["auroc"].low)
    assert logged["test_auroc_without_twins_high"] == pytest.approx(expected["auroc"].high)
    assert "test_ece_without_twins" in logged
    assert expected["auroc"].value < everything.summary["auroc"].value
    assert found.line().startswith("8 of 20 test images have an identical twin in train or valid")
    assert f"auroc {expected['auroc']}" in found.line()


def test_without_twins_nothing_is_said(tmp_path):
    dataset = images(tmp_path / "scans", twins=0)
    assert without_twins(dataset, *answers(dataset), seed=0) is None


def test_where_all_are_twins_no_scores_are_left(tmp_path):
    dataset = images(tmp_path / "scans", twins=10)
    found = without_twins(dataset, *answers(dataset), seed=0)
    assert not found.scores
    assert found.line().endswith("no other is left to be scored")
