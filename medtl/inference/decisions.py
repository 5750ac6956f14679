"""Probabilities from logits, and decisions at thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import expit, softmax

from medtl.label_syntax import BETWEEN, NO_FINDING

LEAST = np.finfo(np.float64).tiny  # least divisor of a probability, for thresholds of 0


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns class probabilities float64 [N, K]: softmax of `logits` [N, K] over `temperature`.

    Temperature scaling after Guo et al. 2017, "On calibration of modern neural networks", arXiv
    1706.04599.

    >>> calibrated(np.array([[0.0, 0.0], [0.0, np.log(3)]]), temperature=1.0)
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])
    """
    return softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)


def presence(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns probabilities of findings float64 [N, K]: sigmoid of `logits` over `temperature`."""
    return expit(np.asarray(logits, dtype=np.float64) / temperature)


def decide(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Decides one class per case, int64 [N], from `probabilities` [N, K] and `thresholds` [K].

    Of two classes: the second from its threshold on. Of more: the class with the highest
    probability relative to its threshold.

    >>> decide(np.array([[0.7, 0.3], [0.9, 0.1]]), thresholds=np.array([0.8, 0.2]))
    array([1, 0])
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= thresholds[1]).astype(np.int64)
    return (probabilities / np.maximum(thresholds, LEAST)).argmax(axis=1)


def decide_findings(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Decides the presence of each finding, bool [N, K]: probability at its threshold or above."""
    return np.asarray(probabilities, dtype=np.float64) >= thresholds


def findings_text(present: Iterable[bool], findings: Sequence[str]) -> str:
    """Joins the names of the findings that are present; `No Finding` if none is.

    >>> findings_text([True, False, True], ["Mass", "Nodule", "Edema"])
    'Mass|Edema'
    """
    names = [name for name, there in zip(findings, present, strict=True) if there]
    return BETWEEN.join(names) or NO_FINDING
