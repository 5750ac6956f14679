"""Averages over the classes: macro, where each class counts equally, and micro, where each case."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.metrics import PER_CLASS, checked, mean_over_classes
from medtl.evaluation.ranking import Ranking


@dataclass(frozen=True)
class PooledCases:
    """N cases of K classes as N x K questions, is this case of that class, answered in one list.

    `ranking` has a place for each question, whose `order` is the case that is asked about; `right`
    [N] says whether the class decided is the case's own.
    """

    ranking: Ranking
    right: np.ndarray
    classes: int

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray | None = None
    ) -> PooledCases:
        """Prepares the arguments of `ScoredCases.of`."""
        probabilities = checked(probabilities)
        classes = probabilities.shape[1]
        decisions = probabilities.argmax(axis=1) if decisions is None else decisions
        asked = np.asarray(labels)[:, None] == np.arange(classes)
        ranking = Ranking.of(asked.ravel(), probabilities.ravel())
        return cls(
            dataclasses.replace(ranking, order=ranking.order // classes),
            (np.asarray(decisions) == labels).astype(np.float64),
            classes,
        )

    def micro(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of `PER_CLASS` over all questions, each [R], under `weights` [R, N].

        Each case has one label and gets one decision. A wrong one is a false negative of one class
        and a false positive of another, so that micro sensitivity, precision and F1 are all the
        accuracy. The areas are those of scikit-learn's `average="micro"`.
        """
        accuracy = weights @ self.right / weights.sum(axis=1)
        roc, average = self.ranking.areas(weights)
        found = {
            "sensitivity": accuracy,
            "specificity": 1 - (1 - accuracy) / (self.classes - 1),
            "precision": accuracy,
            "f1": accuracy,
            "auroc": roc,
            "auprc": average,
        }
        return {name: found[name] for name in PER_CLASS}


def macro(per_class: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unweighted mean of each metric [R, K] over the classes that have it: [R]."""
    return {name: mean_over_classes(per_class[name]) for name in PER_CLASS}
