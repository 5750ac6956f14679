"""Test scores by training settings: cached views, precision, optimizer and others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from medtl.data.dataset import Dataset, load
from medtl.evaluation.confidence_intervals import mean_difference
from medtl.inference.decisions import calibrated
from medtl.networks.pretrained import Backbone, load_weights
from medtl.networks.registry import build
from medtl.settings.training import Reading, TrainSettings
from medtl.training.learner import TransferLearner
from medtl.training.loop import predict
from medtl.tuning.warm_start import PLAIN_LR

ARCHITECTURE = "mobilenet_v2"


@dataclass(frozen=True)
class Way:
    """Named settings of a training."""

    name: str
    settings: dict[str, object]


VIEWS = (
    Way("fresh each epoch", {"keep": "never"}),
    *(Way(f"{views} kept views", {"keep": "always", "views": views}) for views in (8, 4, 2, 1)),
    Way("no augmentation", {"keep": "always", "augment": "none"}),
)
PRECISIONS = (
    Way("float32", {"precision": "float32"}),
    Way("bf16", {"precision": "bf16"}),
)
RECIPES = tuple(
    Way(name, {"lr": PLAIN_LR, **settings})
    for name, settings in {
        "plain fine-tuning": {},
        "AdamW, decay 0.01": {"optimizer": "adamw", "weight_decay": 0.01},
        "mirrored": {"augment": "flip"},
        "not augmented": {"augment": "none"},
        "rate 1e-3": {"lr": 1e-3},
        "rate 1e-4": {"lr": 1e-4},
        "16 images a step": {"batch_size": 16},
    }.items()
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
    settings = TrainSettings(epochs=epochs, patience=epochs, seed=seed, **way.settings)
    network = build(ARCHITECTURE, len(dataset.classes), size, seed)
    expected = dataclasses.replace(load_weights(network, ARCHITECTURE, "imagenet"), image_size=size)
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
