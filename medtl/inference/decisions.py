"""Probabilities from logits, and decisions at thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from medtl.label_syntax import BETWEEN, NO_FINDING


def findings_text(present: Iterable[bool], findings: Sequence[str]) -> str:
    """The names of the findings that are there, joined by |; `No Finding` for none."""
    names = [name for name, there in zip(findings, present, strict=True) if there]
    return BETWEEN.join(names) or NO_FINDING


# Least divisor of a probability, for thresholds of 0.
LEAST = np.finfo(np.float64).tiny


def calibrated(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float64 [N, K]: the softmax of `logits` [N, K] over `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def decide(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The class decided for each case, int64 [N], from `probabilities` [N, K], `thresholds` [K].

    Two classes: the second from its threshold on. More: the class whose probability is highest
    relative to its threshold.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= thresholds[1]).astype(np.int64)
    return (probabilities / np.maximum(thresholds, LEAST)).argmax(axis=1)


def presence(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float64 [N, K]: the logistic function of `logits` [N, K] over `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return 0.5 * (1 + np.tanh(scaled / 2))


def decide_findings(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which findings are decided to be there, bool [N, K]: those at their thresholds or above."""
    return np.asarray(probabilities, dtype=np.float64) >= thresholds
