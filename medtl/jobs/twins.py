"""Test scores without the images that a model has learned from under another name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.duplicates import twins_in_training
from medtl.evaluation.intervals import Interval, measure
from medtl.tracking.journal import log_intervals

SUFFIX = "_without_twins"
TOLD = ("auroc", "balanced_accuracy")


@dataclass(frozen=True)
class WithoutTwins:
    """Scores of the test images that have no identical image in the train or valid split.

    Attributes:
        twins: test images that have one.
        images: of the test split.
        scores: metric to interval, over the other images; empty where there are none.
    """

    twins: int
    images: int
    scores: Mapping[str, Interval]

    def line(self) -> str:
        """One line for the console and the card."""
        are = "image has" if self.twins == 1 else "images have"
        line = (
            f"{self.twins} of {self.images} test {are} an identical twin in train or valid, which "
            "can flatter the scores; "
        )
        if not self.scores:
            return f"{line}no other is left to be scored"
        told = (f"{name.replace('_', ' ')} {self.scores[name]}" for name in TOLD)
        return f"{line}without twins {', '.join(told)}"


def without_twins(
    dataset: Dataset, probabilities: np.ndarray, decisions: np.ndarray, seed: int
) -> WithoutTwins | None:
    """Measures the test split without twins, and logs metrics like `test_auroc_without_twins`.

    Only where `duplicates=allow` accepted them can there be any. Twins are identical images; near
    copies stay, and stand in the data report.

    Args:
        dataset: whose N test samples were scored.
        probabilities: [N, K].
        decisions: as `measure` takes them.
        seed: of the intervals.

    Returns:
        None where no test sample has a twin.
    """
    test = dataset.splits["test"]
    twins = twins_in_training(dataset, test)
    if not twins.any():
        return None
    kept = np.flatnonzero(~twins)
    scores: Mapping[str, Interval] = {}
    if len(kept):
        labels, groups = dataset.labels[test[kept]], dataset.groups[test[kept]]
        decided = decisions[kept]
        measures = measure(
            labels, probabilities[kept], groups, dataset.classes, seed, decisions=decided
        )
        scores = measures.summary
        log_intervals({f"test_{name}{SUFFIX}": each for name, each in scores.items()})
    return WithoutTwins(int(twins.sum()), len(test), scores)
