"""What is known of a case: which of K classes it is of, or which of K findings it has.

Labels int [N] are classes, of which a case has one. Labels int8 [N, K] are findings, of which it
has any number: 1 present, 0 absent, -1 unknown. All that is asked of one class against the rest, or
of one finding, is asked of the cases of which the answer is known.
"""

from __future__ import annotations

import numpy as np


def has_findings(labels: np.ndarray) -> bool:
    """Whether labels are findings."""
    return np.ndim(labels) == 2


def asked(labels: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The cases that can be asked whether they are of a class, or have a finding, and the answers.

    Returns:
        int64 [A], places among the N cases, ascending, and bool [A].
    """
    labels = np.asarray(labels)
    if not has_findings(labels):
        return np.arange(len(labels)), labels == index
    cases = np.flatnonzero(labels[:, index] >= 0)
    return cases, labels[cases, index] == 1


def asked_about(labels: np.ndarray, count: int) -> range:
    """Which of `count` classes or findings are asked about: of two classes the second alone."""
    return range(1, 2) if count == 2 and not has_findings(labels) else range(count)
