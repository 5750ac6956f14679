"""Columns as the user names them, findings with a column each, and several rows of one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from medtl.data.label_encoding import NO_FINDING, in_plain_order, refuse_rows
from medtl.data.reader_votes import NO_MAJORITY, VOTES, majority
from medtl.data.text_normalization import in_one_form
from medtl.errors import MedtlError, ParameterError
from medtl.label_syntax import BETWEEN, UNKNOWN, negativity, parted
from medtl.settings.data import ALL, ANY, IGNORE, MAJORITY, SOFT, check_columns
from medtl.settings.fields import quoted

PRESENT, ABSENT, UNCERTAIN, BLANK = "1", "0", "-1", ""
VALUES = {
    **dict.fromkeys(("1", "1.0", "true", "yes"), PRESENT),
    **dict.fromkeys(("0", "0.0", "false", "no"), ABSENT),
    **dict.fromkeys(("-1", "-1.0"), UNCERTAIN),
    **dict.fromkeys(("", "nan"), BLANK),
}
"""Values of a finding's column, in lower case."""

LEAST_NEGATIVE = 2  # grade of `negativity` of a column that stands for no finding
MOST_NAMED = 5  # columns named in a line


def with_given_columns(
    file: Path, frame: pd.DataFrame, columns: str, uncertain: str = ""
) -> tuple[pd.DataFrame, tuple[str, ...], bool | None]:
    """Renames the columns that the parameter `columns` names.

    Without a label, columns of which each row has exactly one (one-hot) are the classes.

    Returns:
        The rows; notes; and whether labels are findings, None if their texts decide it.

    Raises:
        ParameterError: the table has no such column.
        MedtlError: a finding's column has other values than 1, 0, -1 and blanks.
    """
    named = check_columns(columns)
    for listed in named.values():
        for column in listed:
            if column not in frame:
                allowed = f"of the columns of {file.name}: {', '.join(map(quoted, frame.columns))}"
                raise ParameterError("columns", column, allowed)
    labels = named.pop("label", ())
    notes: tuple[str, ...] = (f"columns as given: {columns}",) if columns else ()
    findings: bool | None = None
    used = {listed[0]: name for name, listed in named.items()}
    if len(labels) == 1:
        used[labels[0]] = "label"
    names = {
        name: f"csv_{name}" for name in frame if name in used.values() and used.get(name) != name
    }
    label: pd.Series | None = None
    if len(labels) > 1:
        label, of_labels, findings = labels_of_columns(file, frame, labels, uncertain)
        notes += of_labels
    elif not labels and not any(name.casefold() == "label" for name in frame):
        one_hot = one_hot_columns(frame.drop(columns=list(used)))
        if one_hot:
            label, of_labels, findings = labels_of_columns(file, frame, one_hot, uncertain)
            notes += of_labels
            labels = one_hot
    frame = frame.rename(columns=names | used)
    if label is not None:
        frame = frame.drop(columns=list(labels)).assign(label=label)
    return frame, notes, findings


def one_hot_columns(frame: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns of 1 and 0 if there are two or more and each row has exactly one 1."""
    if frame.empty:
        return ()
    binary = [name for name in frame if _values(frame[name]) == {PRESENT, ABSENT}]
    if len(binary) < 2:
        return ()
    ones = sum((_plain(frame[name]) == PRESENT).astype(int) for name in binary)
    return tuple(binary) if bool((ones == 1).all()) else ()


def finding_columns(frame: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns that could be one finding each: only 1, 0, -1 and blanks, and some 1."""
    allowed = {PRESENT, ABSENT, UNCERTAIN, BLANK}
    found = {name: _values(frame[name]) for name in frame}
    return tuple(name for name, here in found.items() if PRESENT in here and here <= allowed)


def labels_of_columns(
    file: Path, frame: pd.DataFrame, columns: Sequence[str], uncertain: str
) -> tuple[pd.Series, tuple[str, ...], bool]:
    """Joins columns of one finding each to one label: text, several joined by a bar.

    Uncertain findings are unknown (preceded by ?), or as `uncertain` says. A blank is a finding
    that is not mentioned, and counts as absent. A column for no finding adds nothing. If each row
    has exactly one 1, the columns are classes of one label.

    Returns:
        The labels, notes, and whether they are findings.

    Raises:
        MedtlError: another value than 1, 0, -1 or blank, or a name with a bar or question mark.
    """
    table = pd.DataFrame({name: _plain(frame[name]) for name in columns})
    for name in columns:
        if BETWEEN in name or name.startswith(UNKNOWN):
            raise MedtlError(f"{file}: rename the column {name}: a finding has no {BETWEEN} or ?")
        wrong = table[name].isna()
        if wrong.any():
            value = frame[name][wrong].iloc[0]
            raise MedtlError(
                f"{file}: the column {name} is no finding: {int(wrong.sum())} rows have values "
                f"other than 1, 0, -1 and blank (row {frame.index[wrong][0] + 2}: {value})"
            )
    named = ", ".join(columns[:MOST_NAMED]) + (", ..." if len(columns) > MOST_NAMED else "")
    if ((table == PRESENT).sum(axis=1) == 1).all() and table.isin([PRESENT, ABSENT]).all(axis=None):
        notes = [f"the {len(columns)} columns {named} are the classes: each row has one of them"]
        return (table == PRESENT).idxmax(axis=1), tuple(notes), False
    notes = [f"the {len(columns)} columns {named} are findings"]
    count, blanks = int((table == UNCERTAIN).sum(axis=None)), int((table == BLANK).sum(axis=None))
    if count:
        told = "unknown, and count nowhere" if uncertain in ("", IGNORE) else uncertain
        notes.append(f"{count} uncertain labels (-1) are {told} (uncertain={uncertain or IGNORE})")
    if blanks:
        notes.append(f"{blanks} blank labels count as absent")
    texts = [
        pd.Series("", index=table.index)
        .mask(table[name] == PRESENT, name)
        .mask(table[name] == UNCERTAIN, _uncertain(name, uncertain))
        for name in columns
        if negativity(name, columns) < LEAST_NEGATIVE
    ]
    joined = pd.concat(texts, axis=1).agg(lambda row: BETWEEN.join(filter(None, row)), axis=1)
    return joined.where(joined != "", NO_FINDING), tuple(notes), True


def merged_readers(
    file: Path, frame: pd.DataFrame, readers: str, findings: bool
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Merges the rows of each path to one; returns the rows and notes.

    Of findings, `majority` keeps those that more than half of the readers see (half and half is
    unknown), `any` those that one sees, `all` those that all see. Of one label, `majority` keeps
    the label of more than half of the readers, and omits images without one. `soft` merges as
    `majority`, keeps these images, and adds the labels of all readers in the column `VOTES`. An
    image has the other columns of its first row. Forms of one label count together (see
    `in_one_form`).

    Raises:
        MedtlError: rows of one image differ in patient or split.
    """
    again = frame["path"].duplicated(keep=False)
    if not again.any():
        return frame, ()
    for column in ("patient", "split"):
        if column in frame:
            differs = frame[column] != frame.groupby("path")[column].transform("first")
            remedy = f"give all rows of an image one {column}"
            refuse_rows(file, frame, differs, f"another {column} than their image before", remedy)
    labels, notes = in_one_form(frame["label"])
    frame = frame.assign(label=labels)
    if findings:
        frame = in_plain_order(file, frame)
    votes = frame.groupby("path", sort=False)["label"].agg(list)
    labels = (
        votes.map(lambda texts: _merged_findings(texts, readers))
        if findings
        else votes.map(majority)
    )
    first = frame.drop_duplicates("path")
    merged = first.assign(label=first["path"].map(labels))
    several = int((votes.map(len) > 1).sum())
    line = f"{several} images have several rows, merged to one (readers={readers})"
    if readers == SOFT:
        counted = first["path"].map(votes.map(lambda texts: tuple(sorted(texts))))
        return merged.assign(**{VOTES: counted}).reset_index(drop=True), (*notes, line)
    known = merged["label"] != NO_MAJORITY
    if not known.all():
        left_out = int((~known).sum())
        line += f"; {left_out} images left out, whose readers have no majority for one label"
    return merged[known].reset_index(drop=True), (*notes, line)


def _merged_findings(texts: list[str], readers: str) -> str:
    parts = [parted(text) for text in texts]
    names = sorted({name for part in parts for each in part for name in each} - {NO_FINDING})
    kept = []
    for name in names:
        seen = sum(name in known for known, _ in parts)
        knowing = len(parts) - sum(name in unknown for _, unknown in parts)
        there = {
            MAJORITY: 2 * seen > knowing,
            SOFT: 2 * seen > knowing,
            ANY: seen > 0,
            ALL: seen == knowing > 0,
        }[readers]
        if there:
            kept.append(name)
        elif knowing == 0 or (readers in (MAJORITY, SOFT) and 2 * seen == knowing):
            kept.append(f"{UNKNOWN}{name}")
    return BETWEEN.join(kept) or NO_FINDING


def _uncertain(name: str, uncertain: str) -> str:
    return {"positive": name, "negative": ""}.get(uncertain, f"{UNKNOWN}{name}")


def _plain(values: pd.Series) -> pd.Series:
    return values.str.strip().str.casefold().map(VALUES)


def _values(values: pd.Series) -> set[object]:
    return set(_plain(values).unique())
