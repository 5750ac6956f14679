"""Test scores by training settings: cached views, precision, optimizer and others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.evaluation.confidence_intervals import mean_difference
from medtl.inference.decisions import calibrated
from medtl.networks.pretrained import Backbone, load_weights
from medtl.networks.registry import build
from medtl.settings.data import Reading
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.training.loop import predict
from medtl.tuning.warm_start import PLAIN_LR

ARCHITECTURE = "mobilenet_v2"


@dataclass(frozen=True)
class Way:
    """Named settings of a training."""

    name: str
    settings: TrainSettings


VIEWS = (
    Way("fresh each epoch", TrainSettings(keep="never")),
    *(
        Way(f"{views} kept views", TrainSettings(keep="always", views=views))
        for views in (8, 4, 2, 1)
    ),
    Way("no augmentation", TrainSettings(keep="always", augment="none")),
)
PRECISIONS = (
    Way("float32", TrainSettings(precision="float32")),
    Way("bf16", TrainSettings(precision="bf16")),
)
PLAIN = TrainSettings(lr=PLAIN_LR)
RECIPES = (
    Way("plain fine-tuning", PLAIN),
    Way("AdamW, decay 0.01", dataclasses.replace(PLAIN, optimizer="adamw", weight_decay=0.01)),
    Way("mirrored", dataclasses.replace(PLAIN, augment="flip")),
    Way("not augmented", dataclasses.replace(PLAIN, augment="none")),
    Way("rate 1e-3", dataclasses.replace(PLAIN, lr=1e-3)),
    Way("rate 1e-4", dataclasses.replace(PLAIN, lr=1e-4)),
    Way("16 images a step", dataclasses.replace(PLAIN, batch_size=16)),
)
"""The second trial of a search, and changes of it one by one."""


def compare_ways(
    folder: Path, ways: tuple[Way, ...], cutoff: str, epochs: int, seeds: int, size: int
) -> Iterator[str]:
    """Yields a line for each way: test AUROC, paired difference from the first, seconds.

    Scores are averaged over seeds of initial weights, order and augmentation; images and splits
    are the same. The interval of the difference is over patients. With `epochs=0` each training
    has the epochs of its cut-off.
    """
    dataset = load(str(folder / "labels.csv"), size, seed=0, reading=Reading(duplicates="allow"))
    reference: list[np.ndarray] = []
    for way in ways:
        began = time.perf_counter()
        each = [_probabilities(dataset, way, cutoff, epochs, seed, size) for seed in range(seeds)]
        seconds = (time.perf_counter() - began) / seeds
        yield _line(dataset, way, each, reference, seconds)
        reference = reference or each


def _probabilities(
    dataset: Dataset, way: Way, cutoff: str, epochs: int, seed: int, size: int
) -> np.ndarray:
    """Returns the test probabilities [N, K] of one training."""
    settings = dataclasses.replace(way.settings, epochs=epochs, patience=epochs, seed=seed)
    network = build(ARCHITECTURE, len(dataset.classes), size, seed)
    loaded = load_weights(network, ARCHITECTURE, "imagenet")
    expected = dataclasses.replace(loaded.preprocessing, image_size=size)
    transfer = TransferLearner(
        Backbone(ARCHITECTURE, "imagenet", network, expected), dataset, settings
    )
    trained = transfer.train(cutoff, transfer.recipe(settings.optimizer, settings.lr))
    test = transfer.feed(trained.cut, "test", None)
    return calibrated(predict(trained.cut.suffix, test, transfer.precision), 1.0)


def _line(
    dataset: Dataset,
    way: Way,
    each: list[np.ndarray],
    reference: list[np.ndarray],
    seconds: float,
) -> str:
    test = dataset.splits["test"]
    labels, groups = dataset.labels[test], dataset.groups[test]
    scores = [roc_auc_score(labels, p, multi_class="ovr") for p in each]
    line = f"{way.name:<18} AUROC {np.mean(scores):.4f} (seeds {min(scores):.4f} to "
    line += f"{max(scores):.4f}), {seconds:.0f} s a training"
    if not reference:
        return line
    pairs = list(zip(reference, each, strict=True))
    difference = mean_difference(labels, pairs, groups, "auroc", seed=0)
    largest = max(np.abs(one - other).max() for one, other in pairs)
    interval = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return f"{line}; difference {interval}; a probability differs by {largest:.3f} at most"
