"""Images listed in a table: path, label, and other columns."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pandas as pd

from medtl.data.label_encoding import has_findings, refuse_rows
from medtl.data.sources.csv_columns import CASE_COLUMNS, MEANT, SPLIT_NAMES, in_known_columns
from medtl.data.sources.given_columns import merged_readers, with_given_columns
from medtl.data.sources.image_paths import resolved_paths
from medtl.data.sources.registry import TABLE, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.data.text_normalization import NO_LABEL, joined_by
from medtl.errors import MedtlError, ParameterError
from medtl.label_syntax import BETWEEN
from medtl.settings.data import ALL, ANY, Reading, check_splits
from medtl.settings.fields import quoted

SPLITS = ("train", "valid", "test")


def read_csv(file: Path, reading: Reading) -> Rows:
    """Reads the rows of a table (see `checked_rows`), its columns named by `reading.columns`."""
    frame, notes = read_text(file)
    frame, from_columns, findings = with_given_columns(
        file, frame, reading.columns, reading.uncertain
    )
    return checked_rows(file, frame, reading, notes + from_columns, findings)


def checked_rows(
    file: Path,
    frame: pd.DataFrame,
    reading: Reading,
    notes: tuple[str, ...] = (),
    findings: bool | None = None,
    root: Path | None = None,
) -> Rows:
    """Matches the columns of a table to `path`, `label`, `patient` and `split`; checks all rows.

    An image may have several labels, joined by |, and unknown ones, preceded by ?.

    Args:
        file: the table, for messages.
        frame: its rows, as text.
        reading: which paths, splits and repeated rows are accepted.
        notes: lines of the steps before.
        findings: true if labels are findings, None if their texts decide it.
        root: the folder that paths start at; that of the table by default.

    Raises:
        MedtlError: a missing column or value; another label separator; images that are missing,
            listed twice, or outside the folder. Rows are counted from 2, below the header.
    """
    root = root or file.parent
    if reading.splits:
        notes += (f"splits as given: {reading.splits}",)
    frame, from_columns = in_known_columns(file, _with_splits(frame, reading.splits))
    if frame.empty:
        raise MedtlError(f"{file} lists no images: it holds column names only")
    # spaces around the values of known columns do not count
    for column in frame.columns.intersection((*MEANT, *CASE_COLUMNS)):
        frame[column] = frame[column].str.strip()
    paths, from_paths = resolved_paths(root, frame["path"], reading.path_pattern)
    frame = frame.assign(path=paths)
    _check_labels(file, frame)
    frame["split"] = _splits(file, frame)
    from_readers: tuple[str, ...] = ()
    if reading.readers:
        if findings is None:
            findings = reading.readers in (ANY, ALL) or has_findings(frame["label"])
        frame, from_readers = merged_readers(file, frame, reading.readers, findings)
    _check_paths(file, frame, reading.outside, root)
    return Rows(root, frame, (*notes, *from_columns, *from_paths, *from_readers), findings)


def _with_splits(frame: pd.DataFrame, splits: str) -> pd.DataFrame:
    """Renames the values of the column split as the parameter `splits` says."""
    named = check_splits(splits)
    if not named:
        return frame
    columns = [name for name in frame if name.casefold() == "split"]
    if len(columns) != 1:
        allowed = "empty without a column split; name another one by columns=split:COLUMN"
        raise ParameterError("splits", splits, allowed)
    values = frame[columns[0]].str.strip()
    return frame.assign(**{columns[0]: values.map(named).fillna(values)})


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
    unknown = frame["split"][splits.isna()].unique()[:3]
    example = ",".join(
        f"{quoted(value)}:{name}" for value, name in zip(unknown, SPLITS, strict=False)
    )
    remedy = f"use train, valid, test or nothing, or say what they are, as in splits={example}"
    refuse_rows(file, frame, splits.isna(), "an unknown split", remedy)
    return splits


def _check_paths(file: Path, frame: pd.DataFrame, outside: str, root: Path) -> None:
    root = root.absolute()
    if outside == "refuse":
        check_inside(file, frame, root)
    full = frame["path"].map(lambda path: os.path.normpath(root / path))
    remedy = "list each image once, or merge its rows with readers=majority (or soft, any, all)"
    refuse_rows(file, frame, full.duplicated(), "a path named before", remedy)
    gone = ~full.map(os.path.isfile)
    remedy = f"paths start at {root}; other places are given by path_pattern, as images/{{}}.jpg"
    refuse_rows(file, frame, gone, "no file at its path", remedy)


def check_inside(file: Path, frame: pd.DataFrame, root: Path) -> None:
    """Refuses paths of a table that leave the folder, themselves or by a link.

    Raises:
        MedtlError: with the number of rows, and the first three.
    """
    leaves = ~_inside(root.absolute(), frame["path"])
    remedy = "put the CSV above all of its images, or accept them with outside=allow"
    what = f"a path that leaves {root.absolute()}, itself or by a link"
    refuse_rows(file, frame, leaves, what, remedy)


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
