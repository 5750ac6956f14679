"""Prediction sets: the classes that a case may be of, at a stated coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

VALIDATION, OUT_OF_FOLD = "validation", "out-of-fold"
"""Origins of calibration cases: a part of validation set aside, or predictions of all folds."""


@dataclass(frozen=True)
class PredictionSets:
    """Conformal prediction sets of a model, as thresholds on its calibrated probabilities.

    A class is in the set of a case if its probability reaches the threshold of the class, and the
    most probable class is always in it (least ambiguous sets: Sadinle, Lei & Wasserman 2019,
    Journal of the American Statistical Association 114:223).

    Attributes:
        coverage: share of sets that should contain the class of their case.
        thresholds: one per class; equal ones where they are not by class.
        by_class: True if the coverage is that within each class, False if that over all cases.
        patients: number of calibration patients by class.
        source: `VALIDATION` or `OUT_OF_FOLD`.
    """

    coverage: float
    thresholds: tuple[float, ...]
    by_class: bool
    patients: tuple[int, ...]
    source: str

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """Flags the classes in the set of each case, bool [N, K], from probabilities [N, K].

        >>> PredictionSets(0.9, (0.2, 0.4), True, (50, 50), VALIDATION).members(
        ...     np.array([[0.9, 0.1], [0.55, 0.45], [0.1, 0.9]])
        ... ).astype(int).tolist()
        [[1, 0], [1, 1], [0, 1]]
        """
        probabilities = np.asarray(probabilities, dtype=np.float64)
        inside = probabilities >= np.array(self.thresholds)
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside

    def words(self) -> str:
        """Formats how the thresholds were set."""
        few, most = min(self.patients), max(self.patients)
        counts = f"{few} to {most}" if few < most else str(few)
        if self.by_class:
            return f"thresholds by class, on {counts} {self.source} patients of each"
        return (
            f"one threshold for all classes, as one has only {few} {self.source} patients: "
            "coverage holds over all cases, not within each class"
        )

    def names(self, probabilities: np.ndarray, classes: Sequence[str]) -> list[str]:
        """Returns the set of one case with `probabilities` [K], the most probable class first."""
        (inside,) = self.members(probabilities[None])
        order = np.argsort(-probabilities, kind="stable")
        return [classes[place] for place in order if inside[place]]
