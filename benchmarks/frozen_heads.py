"""Linear heads on frozen features of a published network, cross-validated within seconds.

The features of all images are computed once. A head is solved and calibrated as in `train` with
`cutoff=head`; folds are those of `folds`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from benchmarks.in_domain import features_of, untrained
from medtl.data.dataset import Dataset
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.evaluation.calibration import Calibration
from medtl.inference.out_of_distribution import NETWORK
from medtl.settings.data import Reading
from medtl.training.linear_head import LinearHead, solve


@dataclass(frozen=True)
class FrozenFeatures:
    """A data set and the features float32 [N, F] of its images."""

    dataset: Dataset
    features: np.ndarray

    @classmethod
    def of(cls, data: str, architecture: str, weights: str, image_size: int) -> FrozenFeatures:
        """Loads the data, with one label an image, and passes each image through the network."""
        reading = Reading(duplicates="allow", unreadable="skip")
        dataset = load(data, image_size, 0, reading)
        bundle = untrained(architecture, weights, image_size)
        found = features_of(bundle, dataset.images, len(dataset.labels))
        return cls(dataset, found[NETWORK])

    def head(self, labels: np.ndarray, train: np.ndarray, valid: np.ndarray) -> LinearHead:
        """Solves a head on the samples `train`; `valid` chooses its penalty."""
        each = (self.features[train], labels[train], self.features[valid], labels[valid])
        return solve(*each, "none")

    def out_of_fold(
        self, labels: np.ndarray, pool: np.ndarray, count: int, seed: int
    ) -> OutOfFoldHeads:
        """Cross-validates heads on the samples `pool` with `labels` int [N], by patient."""
        others = np.setdiff1d(np.arange(len(labels)), pool)
        splits = {"train": pool, "valid": pool[:0], "test": others}
        folds = draw_folds(
            dataclasses.replace(self.dataset, labels=labels, splits=splits), count, seed
        )
        logits = np.zeros((len(labels), len(self.dataset.classes)))
        probabilities, heads = np.zeros_like(logits), []
        for number in range(count):
            train, valid, out = folds.splits(number).values()
            head = self.head(labels, train, valid)
            calibration = Calibration.fit(head.logits(self.features[valid]), labels[valid])
            logits[out] = head.logits(self.features[out])
            probabilities[out] = calibration.probabilities(logits[out])
            heads.append(head)
        return OutOfFoldHeads(logits[pool], probabilities[pool], folds.fold[pool], heads)


@dataclass(frozen=True)
class OutOfFoldHeads:
    """Heads of all folds, and their predictions of the cases that they have not seen.

    `logits` and calibrated `probabilities` [P, K] and `folds` int [P] are in the order of the pool.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    folds: np.ndarray
    heads: list[LinearHead]

    def ensemble(self, features: np.ndarray) -> np.ndarray:
        """Returns the mean logits [M, K] of all heads for other cases, of `features` [M, F]."""
        return np.mean([head.logits(features) for head in self.heads], axis=0)
