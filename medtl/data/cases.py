"""Cases of several images: the rows of a CSV that share a `case` become one sample."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medtl.data.labels import refuse_rows
from medtl.errors import MedtlError

CASE, MODALITY = "case", "modality"
IMAGE = "image_"
"""Before the name of a modality: the column that holds the path of its image."""


def has_cases(file: Path, frame: pd.DataFrame) -> bool:
    """Whether the rows of a CSV file are images of cases.

    Raises:
        MedtlError: it has one of the two columns that are needed, and not the other.
    """
    given = [name for name in (CASE, MODALITY) if name in frame]
    if len(given) == 1:
        other = MODALITY if given == [CASE] else CASE
        raise MedtlError(f"{file} has the column {given[0]} and not {other}: give both, or neither")
    return bool(given)


def joined(file: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A row a case in the order of their first images, and the modalities in alphabetical order.

    Args:
        file: the CSV, for messages.
        frame: a row an image, as `read_csv` gives it, with `case` and `modality`.

    Returns:
        Columns `case`, `label`, `patient`, `split`, what else the first row of the case had, and
        an `image_MODALITY` with the path for each modality ('' where the case has none).

    Raises:
        MedtlError: a row lacks its case or modality, a case has two images of one modality, or
            its rows differ in label, patient or split.
    """
    for column in (CASE, MODALITY):
        empty = frame[column] == ""
        refuse_rows(file, frame, empty, f"no {column}", f"give each row its {column}")
    again = frame.duplicated([CASE, MODALITY])
    remedy = "give every image of a case a modality of its own"
    refuse_rows(file, frame, again, "a modality that its case has before", remedy)
    for column in ("label", "patient", "split"):
        differs = frame[column] != frame.groupby(CASE)[column].transform("first")
        remedy = f"a case has one {column}; cases of two patients need names of their own"
        refuse_rows(file, frame, differs, f"another {column} than their case", remedy)
    modalities = tuple(sorted(frame[MODALITY].unique()))
    cases = frame.drop_duplicates(CASE).drop(columns=["path", MODALITY]).set_index(CASE)
    paths = frame.pivot(index=CASE, columns=MODALITY, values="path").fillna("")
    for name in modalities:
        cases[f"{IMAGE}{name}"] = paths[name]
    return cases.reset_index(), modalities


def incomplete(frame: pd.DataFrame, modalities: tuple[str, ...]) -> list[str]:
    """A line for each case that lacks images: its name and what it lacks."""
    lines = []
    for name in modalities:
        lacking = frame.loc[frame[f"{IMAGE}{name}"] == "", CASE]
        lines += [f"{case} has no {name}" for case in lacking]
    return sorted(lines)
