"""Decision curves: net benefit against the threshold probability.

Vickers & Elkin 2006, "Decision curve analysis: a novel method for evaluating prediction models",
Medical Decision Making 26:565.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.evaluation.scored_cases import Ranking, asked_about, checked, labelled_cases

THRESHOLDS = np.arange(1, 100) / 100


def net_benefit(
    positive: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Computes the net benefit float64 [T]: true positives less weighted false positives, per case.

    Args:
        positive: bool [N].
        probabilities: [N], calibrated; a case is treated from the threshold on.
        thresholds: [T], above 0 and below 1. A threshold p weights a false positive by its odds,
            p / (1 - p).
    """
    thresholds = np.asarray(thresholds, dtype=np.float64)
    ranking = Ranking.of(positive, np.asarray(probabilities, dtype=np.float64))
    falling = np.asarray(probabilities)[ranking.order]
    treated = np.searchsorted(-falling, -thresholds, side="right")
    true = np.append(0, np.cumsum(ranking.positive))[treated]
    return (true - (treated - true) * thresholds / (1 - thresholds)) / len(positive)


def treat_all(positive: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Computes the net benefit of treating every case, float64 [T]; that of treating none is 0."""
    return net_benefit(positive, np.ones(len(positive)), thresholds)


def decision_curve(
    labels: np.ndarray, probabilities: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Computes the net benefit at thresholds from 1 % to 99 %, each class against the rest.

    `labels` int [N] (of findings int8 [N, K]), `probabilities` [N, K], calibrated. With two classes
    only the second, the positive one, has rows. One row per class and threshold: `class`,
    `threshold`, and the net benefit of the `model`, of `treat_all` and of `treat_none`. A class
    without cases has no rows. It holds for classes as frequent as among these cases.
    """
    probabilities = checked(probabilities)
    parts = []
    for index in asked_about(labels, len(classes)):
        cases, positive = labelled_cases(labels, index)
        if positive.any():
            curve = {
                "class": classes[index],
                "threshold": THRESHOLDS,
                "model": net_benefit(positive, probabilities[cases, index], THRESHOLDS),
                "treat_all": treat_all(positive, THRESHOLDS),
                "treat_none": 0.0,
            }
            parts.append(pd.DataFrame(curve))
    columns = ["class", "threshold", "model", "treat_all", "treat_none"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
