"""Shares of a training split: drawn by patient, stratified, each within every larger one."""

from __future__ import annotations

import numpy as np


def nested_share(
    labels: np.ndarray, patients: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """The rows (int64, ascending) of about `fraction` of N images, whole patients at a time.

    Every class gives about that share of its patients' images, and at least one patient. With one
    seed a smaller share lies within every larger one, so that a curve over sizes adds images and
    exchanges none. A patient counts for the class that most of its images have.

    Args:
        labels: int [N].
        patients: int [N], equal for images of one patient.
        fraction: above 0, at most 1.
        seed: decides in which order patients are taken.
    """
    names, places, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(counts, (places, labels), 1)
    classes = counts.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = np.zeros(len(names), bool)
    for kind in np.unique(classes):
        of_kind = order[classes[order] == kind]
        middle = np.cumsum(sizes[of_kind]) - sizes[of_kind] / 2
        # the patient at whose middle the share is reached is the last one
        taken[of_kind] = middle <= fraction * sizes[of_kind].sum()
        taken[of_kind[0]] = True
    return np.flatnonzero(taken[places])
