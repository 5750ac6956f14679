"""Images listed in a CSV file: path, label, and what else is known of each."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pandas as pd

from medtl.data.label_encoding import refuse_rows
from medtl.data.sources.csv_columns import CASE_COLUMNS, MEANT, SPLIT_NAMES, in_known_columns
from medtl.data.sources.registry import TABLE, Rows, Source
from medtl.data.text_normalization import NO_LABEL, joined_by
from medtl.errors import MedtlError
from medtl.label_syntax import BETWEEN
from medtl.settings.training import Reading

MOST_COLUMNS = 1000
"""Limit for a CSV; a file beyond it is not a list of images, and takes minutes to read."""


def read_csv(file: Path, reading: Reading) -> Rows:
    """Reads the rows of a CSV file (see `checked_rows`)."""
    return checked_rows(file, read_text(file), reading.outside)


def read_text(file: Path) -> pd.DataFrame:
    """Reads a CSV file as text, its column names without spaces around them.

    Raises:
        MedtlError: not a CSV file, or a column name that is there twice.
    """
    try:
        with open(file, "rb") as opened:
            columns = opened.readline(2**20).count(b",") + 1
        if columns > MOST_COLUMNS:
            raise ValueError(f"{columns} columns, more than {MOST_COLUMNS}")
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise MedtlError(f"{file} cannot be read as a CSV file in UTF-8 ({reason})") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise MedtlError(f"{file}: rows have more fields than there are column names; quote commas")
    frame.columns = frame.columns.str.strip()
    again = frame.columns[frame.columns.duplicated()]
    if len(again):
        raise MedtlError(f"{file} has the column {again[0]} twice; give each a name of its own")
    return frame


def checked_rows(file: Path, frame: pd.DataFrame, outside: str) -> Rows:
    """Matches the columns of a table to `path`, `label`, `patient` and `split`; checks all rows.

    An image may have several labels, joined by |, and unknown ones, preceded by ?.

    Args:
        file: the table, for messages; paths start at its folder.
        frame: its rows, as text.
        outside: handling of paths outside that folder: `refuse` or `allow`.

    Raises:
        MedtlError: a missing column or value; another label separator; images that are missing,
            listed twice, or outside the folder. Rows are counted from 2, below the header.
    """
    frame, notes = in_known_columns(file, frame)
    if frame.empty:
        raise MedtlError(f"{file} lists no images: it holds column names only")
    # spaces around the values of known columns do not count
    for column in frame.columns.intersection((*MEANT, *CASE_COLUMNS)):
        frame[column] = frame[column].str.strip()
    _check_labels(file, frame)
    frame["split"] = _splits(file, frame)
    _check_paths(file, frame, outside)
    return Rows(file.parent, frame, notes)


def header(file: Path) -> tuple[str, ...]:
    """Returns the column names in the first line of a CSV file; none if it cannot be read."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as opened:
            names = opened.readline(2**20).split(",")
    except OSError:
        return ()
    return tuple(name.strip(' "\n\r') for name in names)


def lists_images(file: Path) -> bool:
    """Returns whether a CSV file has the columns `path` and `label`, in any case."""
    return {"path", "label"} <= {name.casefold() for name in header(file)}


def _check_labels(file: Path, frame: pd.DataFrame) -> None:
    for column in ("path", "label"):
        empty = frame[column].str.strip(f"{BETWEEN} ") == ""
        refuse_rows(file, frame, empty, f"no {column}", f"give each row its {column}")
    labels = frame["label"]
    unnamed = labels.str.casefold().isin(NO_LABEL)
    remedy = "write the label, or take the rows out"
    what = f"a word for no label, {', '.join(labels[unnamed].unique()[:3])}"
    refuse_rows(file, frame, unnamed, what, remedy)
    signs = joined_by(labels.unique())
    several = labels.isin(signs)
    if several.any():
        first = labels[several].iloc[0]
        remedy = f"join them by {BETWEEN}, and write a label that is one with another sign"
        what = f"several labels joined by {signs[first]} ({first})"
        refuse_rows(file, frame, several, what, remedy)


def _splits(file: Path, frame: pd.DataFrame) -> pd.Series:
    splits = frame["split"].str.casefold().map({"": "", **SPLIT_NAMES})
    refuse_rows(file, frame, splits.isna(), "an unknown split", "use train, valid, test or nothing")
    return splits


def _check_paths(file: Path, frame: pd.DataFrame, outside: str) -> None:
    root = file.parent.absolute()
    if outside == "refuse":
        leaves = ~_inside(root, frame["path"])
        remedy = "put the CSV above all of its images, or accept them with outside=allow"
        what = f"a path that leaves {root}, itself or by a link"
        refuse_rows(file, frame, leaves, what, remedy)
    full = frame["path"].map(lambda path: os.path.normpath(root / path))
    refuse_rows(file, frame, full.duplicated(), "a path named before", "list each image once")
    gone = ~full.map(os.path.isfile)
    refuse_rows(file, frame, gone, "no file at its path", f"paths start at {root}")


def _inside(root: Path, paths: pd.Series) -> pd.Series:
    """Returns whether each path, of which links are followed, is below the folder: bool [N]."""
    real = functools.cache(os.path.realpath)  # of few folders, and not of each image
    below = os.path.join(real(root), "")

    def is_inside(path: str) -> bool:
        if "\0" in path:  # no file has such a name
            return True
        folder, name = os.path.split(os.path.join(root, path))
        place = os.path.join(real(folder), name)
        return (real(place) if os.path.islink(place) else place).startswith(below)

    return paths.map(is_inside)


SOURCE = Source("table", TABLE, Path.is_file, read_csv)
