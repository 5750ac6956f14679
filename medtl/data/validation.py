"""Size check of the validation split."""

from __future__ import annotations

import numpy as np

from medtl.data.findings import ABSENT, members

LEAST, LEAST_OF_CLASS = 30, 10
"""Least patients (images, if unknown) of a validation split, and of each of its classes.

With 10 patients all classified correctly, Wilson's 95 % interval of the sensitivity begins at 72 %,
with 30 at 89 %: operating points on fewer are mostly chance.
"""

_NAMED = 3  # most classes in a line


def few_to_validate(
    labels: np.ndarray, classes: tuple[str, ...], groups: np.ndarray, valid: np.ndarray
) -> tuple[str, ...]:
    """Returns a line if the validation split is too small for reliable thresholds.

    Args:
        labels: int64 [N], or int8 [N, K] for findings.
        classes: K names.
        groups: int64 [N], equal for images of one patient, which count once.
        valid: indices of the validation split, int64; empty for evaluation-only data.
    """
    if not len(valid):
        return ()
    here, groups = labels[valid], groups[valid]
    count = len(np.unique(groups))
    sides = [("", members(here, len(classes)))]
    if here.ndim == 2:
        sides.append(("no ", here == ABSENT))
    few = [
        f"{side}{name} {number}"
        for side, there in sides
        for name, column in zip(classes, there.T, strict=True)
        if (number := len(np.unique(groups[column]))) < LEAST_OF_CLASS
    ]
    if count >= LEAST and not few:
        return ()
    images = f"{len(valid)} images"
    if count < len(valid):
        images += (
            f" in {count} {'group' if count == 1 else 'groups'} of one patient or equal pixels"
        )
    if few:
        images += f" ({', '.join(few[:_NAMED])}{', ...' if len(few) > _NAMED else ''})"
    return (
        f"few to validate on: {images}; the thresholds, the temperature and in_domain rest on them "
        f"and are uncertain below {LEAST} patients and {LEAST_OF_CLASS} of each class",
    )
