"""Identical images: found by their decoded pixels, under whatever name and format."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.data.manifest import CASE
from medtl.data.refused_data import RefusedDataError


def groups_that_stay_together(patients: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Groups rows that share a patient or identical pixels; returns a number per row, int64 [N].

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
    """Refuses identical images under two labels or in two splits, or notes them if allowed.

    Args:
        name: name of the data set.
        frame: one row per image or case, with `path` or `case`, `label`, `patient`, `split` and
            `content` (equal for identical images).
        duplicates: `refuse` or `allow`.

    Returns:
        One line per kind found, identical images of two patients first.

    Raises:
        RefusedDataError: with `refuse`; its message has the first three pairs and the count, its
            table all.
    """
    twins = frame[frame["content"].duplicated(keep=False)]
    found = {
        where: f"{_counted(pairs)} {where} {_named(pairs)}"
        for where, column in (("under two labels", "label"), ("in two splits", "split"))
        if (pairs := _pairs(twins, column))
    }
    if found and duplicates == "refuse":
        raise RefusedDataError(
            f"{name}: {'; '.join(found.values())}; remove the wrong ones, or accept them with "
            "duplicates=allow",
            name,
            "identical_images",
            _listed(twins),
        )
    lines = [identical_under_two_patients(frame)]
    lines += [f"{line}, kept as they are" for line in found.values()]
    same = int(twins.duplicated(["content", "label", "split"]).sum())
    if same:
        are = "image is" if same == 1 else "images are"
        lines.append(f"{same} {are} identical to another one of the same label and split")
    return tuple(line for line in lines if line)


def identical_under_two_patients(frame: pd.DataFrame) -> str:
    """Returns a line on identical images of two known patients; '' without any.

    `frame` has `path` or `case`, `patient` ('' where unknown) and `content`.
    """
    known = frame[frame["patient"] != ""]
    pairs = _pairs(known[known["content"].duplicated(keep=False)], "patient")
    if not pairs:
        return ""
    return (
        f"{_counted(pairs)} under two patients {_named(pairs)}: if they are one person, give them "
        "one name"
    )


def _pairs(twins: pd.DataFrame, column: str) -> list[str]:
    """Names two images of each content that differs in `column`."""
    pairs, naming = [], _naming(twins)
    for _, same in twins.groupby("content", sort=False):
        kinds = same.drop_duplicates(column)
        if len(kinds) > 1:
            pairs.append(" and ".join(kinds[naming].iloc[:2]))
    return pairs


def _counted(pairs: list[str]) -> str:
    return f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of identical images"


def _named(pairs: list[str]) -> str:
    return f"({', '.join(pairs[:3])}{', ...' if len(pairs) > 3 else ''})"


def _listed(twins: pd.DataFrame) -> pd.DataFrame:
    """Returns all images that are identical to another one of another label or split, by group."""
    kinds = twins.groupby("content")[["label", "split"]].transform("nunique")
    wrong = twins[(kinds > 1).any(axis=1)]
    group = pd.factorize(wrong["content"])[0] + 1
    columns = [_naming(twins), *(each for each in ("label", "split", "patient") if each in wrong)]
    listed = wrong[columns].assign(group=group)
    return listed.sort_values("group", kind="stable", ignore_index=True)[["group", *columns]]


def _naming(frame: pd.DataFrame) -> str:
    return CASE if CASE in frame else "path"
