"""Splits with few cases of a class, and what rests on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medtl.data.label_encoding import ABSENT, membership_matrix

TRAIN, VALID, TEST = "train", "valid", "test"
FOLDS, CONFORMAL = "folds", "conformal"
"""Parts of the data beside the splits: all folds together, and the cases that set the thresholds of
prediction sets."""

LEAST, LEAST_OF_CLASS = 30, 20
"""Least patients (images, if unknown) to validate on, and of each class in any split.

With 20 patients all classified correctly, Wilson's 95 % interval of the sensitivity begins at 84 %,
with 30 at 89 %: operating points on fewer are mostly chance.
"""

_RESTS = {
    TRAIN: ("train on", "the weights rest"),
    VALID: ("validate on", "the thresholds, the temperature and in_domain rest"),
    CONFORMAL: ("set the thresholds of prediction sets by", "the sets rest"),
    FOLDS: (
        "cross-validate on",
        "the out-of-fold scores, the thresholds, the temperature and in_domain rest",
    ),
    TEST: ("test on", "the scores rest"),
}
_NAMED = 3  # most classes in a line


def few_cases(
    labels: np.ndarray,
    classes: tuple[str, ...],
    groups: np.ndarray,
    parts: Mapping[str, np.ndarray],
) -> tuple[str, ...]:
    """Returns a line for each part of the data that has few cases of a class, or few in all.

    Args:
        labels: int64 [N], or int8 [N, K] for findings.
        classes: K names.
        groups: int64 [N], equal for images of one patient, which count once.
        parts: indices of the samples of each part, int64, by its name (`TRAIN` ...); an empty part
            has no line.
    """
    lines = (
        _line(name, labels[indices], classes, groups[indices])
        for name, indices in parts.items()
        if len(indices)
    )
    return tuple(line for line in lines if line)


def _line(name: str, labels: np.ndarray, classes: tuple[str, ...], groups: np.ndarray) -> str:
    count = len(np.unique(groups))
    sides = [("", membership_matrix(labels, len(classes)))]
    if labels.ndim == 2:
        sides.append(("no ", labels == ABSENT))
    few = [
        f"{side}{each} {number}"
        for side, there in sides
        for each, column in zip(classes, there.T, strict=True)
        if (number := len(np.unique(groups[column]))) < LEAST_OF_CLASS
    ]
    if not few and (name != VALID or count >= LEAST):
        return ""
    images = f"{len(labels)} images"
    if count < len(labels):
        images += (
            f" in {count} {'group' if count == 1 else 'groups'} of one patient or equal pixels"
        )
    if few:
        images += f" ({', '.join(few[:_NAMED])}{', ...' if len(few) > _NAMED else ''})"
    purpose, rest = _RESTS[name]
    least = f"{LEAST} patients and " if name == VALID else ""
    return (
        f"few to {purpose}: {images}; {rest} on them and are uncertain below {least}"
        f"{LEAST_OF_CLASS} {'' if least else 'patients '}of each class"
    )
