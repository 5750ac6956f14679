"""Identical images: found by their decoded pixels, under whatever name and format."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.data.cases import CASE
from medtl.errors import MedtlError


def groups_that_stay_together(patients: np.ndarray, content: np.ndarray) -> np.ndarray:
    """A number for each row, int64 [N], equal where rows share a patient or identical pixels.

    Chains count: a patient who shares an image with a second patient stays with that one, too.
    """
    leader = np.arange(len(patients))

    def first_of(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for keys in (patients, content):
        seen: dict[object, int] = {}
        for row, key in enumerate(keys.tolist()):
            leader[first_of(row)] = first_of(seen.setdefault(key, row))
    return np.array([first_of(row) for row in range(len(patients))], dtype=np.int64)


def check_duplicates(name: str, frame: pd.DataFrame, duplicates: str) -> tuple[str, ...]:
    """Refuses identical images under two labels or in two splits; allowed, it notes them.

    Args:
        name: of the data set.
        frame: a row an image or a case, with `path` or `case`, `label`, `split` and `content`
            (equal where all images are identical).
        duplicates: `refuse` or `allow`.

    Returns:
        A line for each kind found.

    Raises:
        MedtlError: with `refuse`, naming the first three pairs and how many there are.
    """
    twins = frame[frame["content"].duplicated(keep=False)]
    found = [
        f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of identical images {where} "
        f"({', '.join(pairs[:3])}{', ...' if len(pairs) > 3 else ''})"
        for where, column in (("under two labels", "label"), ("in two splits", "split"))
        if (pairs := _pairs(twins, column))
    ]
    if found and duplicates == "refuse":
        raise MedtlError(
            f"{name}: {'; '.join(found)}; remove the wrong ones, or accept them with "
            "duplicates=allow"
        )
    harmless = len(twins) - twins["content"].nunique() if not found else 0
    if harmless:
        return (f"{harmless} images are identical to another one of the same label and split",)
    return tuple(f"{line}, kept as they are" for line in found)


def _pairs(twins: pd.DataFrame, column: str) -> list[str]:
    """For each content that differs in `column`: two of its images, by name."""
    pairs, naming = [], CASE if CASE in twins else "path"
    for _, same in twins.groupby("content", sort=False):
        kinds = same.drop_duplicates(column)
        if len(kinds) > 1:
            pairs.append(" and ".join(kinds[naming].iloc[:2]))
    return pairs
