"""Whether a validation split is large enough for what is decided on it."""

from __future__ import annotations

import numpy as np

from medtl.data.findings import ABSENT, members

LEAST, LEAST_OF_CLASS = 30, 10
"""Patients (images, where patients are unknown) of a validation split, and of each of its classes.

Of 10 patients that are all found, Wilson's 95 % interval of the sensitivity still begins at 72 %,
and of 30 at 89 %: below, an operating point is drawn from little more than chance.
"""

_NAMED = 3  # classes that a line names


def few_to_validate(
    labels: np.ndarray, classes: tuple[str, ...], groups: np.ndarray, valid: np.ndarray
) -> tuple[str, ...]:
    """A line where the validation split is so small that what rests on it is uncertain.

    Args:
        labels: int64 [N], or of findings int8 [N, K].
        classes: K names.
        groups: int64 [N], equal for images of one patient, which count once.
        valid: the images of the validation split, int64; none where data is only evaluated on.
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
