"""Test scores without images that have an identical copy in the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from medtl.data.dataset import Dataset
from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.scored_cases import DecidedCases
from medtl.inference.training_record import LEARNED

REPORTED = ("auroc", "balanced_accuracy")


@dataclass(frozen=True)
class ScoresWithoutDuplicates:
    """Scores of the test images without an identical image in the train or valid split.

    Attributes:
        duplicates: number of test images with an identical one.
        images: number of test images.
        scores: intervals by metric, over the other images; empty without any.
    """

    duplicates: int
    images: int
    scores: Mapping[str, Interval]

    def line(self) -> str:
        """Formats a line for the console and the card."""
        have = "image has" if self.duplicates == 1 else "images have"
        line = (
            f"{self.duplicates} of {self.images} test {have} an identical copy in train or valid, "
            "which can bias the scores upwards; "
        )
        if not self.scores:
            return f"{line}no other image is left to be scored"
        scores = (f"{name.replace('_', ' ')} {self.scores[name]}" for name in REPORTED)
        return f"{line}without them {', '.join(scores)}"


def duplicates_of_training(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Finds samples with an identical image in the train or valid split.

    One identical image of a case suffices. Near copies do not count; the data report lists them.

    Args:
        dataset: data set with given splits and allowed duplicates.
        indices: int [n], samples of the data set.

    Returns:
        bool [n]; True for every sample of the train or valid split.
    """
    contents = dataset.frame["content"].str.split()
    learned = np.concatenate([dataset.splits[each] for each in LEARNED if each in dataset.splits])
    known = set(chain.from_iterable(contents.iloc[learned]))
    found = [not known.isdisjoint(each) for each in contents.iloc[indices]]
    return np.array(found, dtype=bool)


def scores_without_duplicates(
    dataset: Dataset, cases: DecidedCases, seed: int
) -> ScoresWithoutDuplicates | None:
    """Scores the test split (`cases`) without duplicates of training images.

    They exist only with `duplicates=allow`. Returns None if there is none.
    """
    duplicates = duplicates_of_training(dataset, dataset.splits["test"])
    if not duplicates.any():
        return None
    scores: Mapping[str, Interval] = {}
    if not duplicates.all():
        others = cases.among(~duplicates)
        scores = measure(
            others.labels,
            others.probabilities,
            others.groups,
            others.classes,
            seed,
            decisions=others.decisions,
        ).summary
    return ScoresWithoutDuplicates(int(duplicates.sum()), len(duplicates), scores)
