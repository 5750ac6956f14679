"""Test scores without images that have an identical copy in the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from medtl.data.dataset import Dataset
from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.jackknife import Interval
from medtl.inference.training_record import LEARNED
from medtl.tracking.artifacts import log_intervals


def twins_in_training(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Finds samples with an identical image in the train or valid split.

    One identical image of a case suffices. Near copies do not count; the data report lists them.

    Args:
        dataset: data set with given splits and allowed duplicates.
        indices: int [n], samples of the data set.

    Returns:
        bool [n]; a sample of the train or valid split is always its own twin.
    """
    contents = dataset.frame["content"].str.split()
    learned = np.concatenate([dataset.splits[split] for split in LEARNED])
    taught = set(chain.from_iterable(contents.iloc[learned]))
    found = [not taught.isdisjoint(each) for each in contents.iloc[indices]]
    return np.array(found, dtype=bool)


SUFFIX = "_without_twins"
TOLD = ("auroc", "balanced_accuracy")


@dataclass(frozen=True)
class WithoutTwins:
    """Scores of the test images without an identical image in the train or valid split.

    Attributes:
        twins: number of test images with an identical one.
        images: number of test images.
        scores: intervals by metric, over the other images; empty without any.
    """

    twins: int
    images: int
    scores: Mapping[str, Interval]

    def line(self) -> str:
        """Formats a line for the console and the card."""
        are = "image has" if self.twins == 1 else "images have"
        line = (
            f"{self.twins} of {self.images} test {are} an identical twin in train or valid, which "
            "can bias the scores upwards; "
        )
        if not self.scores:
            return f"{line}no other is left to be scored"
        told = (f"{name.replace('_', ' ')} {self.scores[name]}" for name in TOLD)
        return f"{line}without twins {', '.join(told)}"


def without_twins(
    dataset: Dataset, probabilities: np.ndarray, decisions: np.ndarray, seed: int
) -> WithoutTwins | None:
    """Scores the test split without twins, and logs metrics like `test_auroc_without_twins`.

    Twins exist only with `duplicates=allow`. They are identical images; near copies stay, and are
    listed in the data report.

    Args:
        dataset: data set of the N scored test samples.
        probabilities: [N, K].
        decisions: as in `measure`.
        seed: seed of the intervals.

    Returns:
        The scores; None if no test sample has a twin.
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
