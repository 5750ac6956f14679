"""Patients of a table: placeholders, normalization of names, names in paths."""

from __future__ import annotations

import re

import pandas as pd

from medtl.data.alike import cited, near_equal, plain_form, whole_numbers
from medtl.errors import ParameterError

NOBODY = frozenset(
    ("nan", "na", "n/a", "n.a.", "<na>", "#n/a", "nat", "nil", "null", "none", "unknown", "unk",
     "undefined", "unspecified", "missing", "empty", "no id", "noid", "not available", "anon",
     "anonymous", "anonymised", "anonymized", "deidentified", "de-identified", "-1")
)  # fmt: skip
"""Placeholders for an unknown patient, case-insensitive."""

_SIGNS = re.compile(r"[\W_]*")  # punctuation only: -, ?, ...


def with_patients(frame: pd.DataFrame, pattern: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Normalizes the patients, '' for unknown ones; returns the rows and notes.

    Args:
        frame: table with `path` and `patient`.
        pattern: regular expression searched in the path of each row without a patient; its first
            group is the patient. '' for none.

    Raises:
        ParameterError: the pattern matches no path.
    """
    given = frame["patient"].map(plain_form)
    patients = given.mask(given.map(_is_nobody), "")
    notes = list(_nobody(given[(patients == "") & (given != "")], len(frame)))
    written = pd.DataFrame({"name": given, "as": frame["patient"].str.strip()}).drop_duplicates()
    twice = sorted(written["name"][written["name"].duplicated() & (written["name"] != "")].unique())
    if twice:
        shown = cited([name] for name in twice)
        notes.append(f"patients in two forms of Unicode, or with other spaces, are one: {shown}")
    if pattern:
        patients, note = _from_paths(frame["path"], patients, pattern)
        notes.append(note)
    whole = whole_numbers(patients.unique())
    merged = [(number, name) for name, number in whole.items() if number in set(patients)]
    patients = patients.replace(whole) if whole else patients
    if merged:
        notes.append(f"patients written in two ways count as one: {cited(sorted(merged))}")
    alike = near_equal(patients[patients != ""].unique())
    if alike:
        notes.append(
            "patients whose names differ only in case, zeros or signs count as different ones: "
            f"{cited(alike)}; give each patient one name"
        )
    return frame.assign(patient=patients), tuple(notes)


def _is_nobody(name: str) -> bool:
    return name.casefold() in NOBODY or _SIGNS.fullmatch(name) is not None


def _nobody(words: pd.Series, rows: int) -> tuple[str, ...]:
    if words.empty:
        return ()
    named = ", ".join(sorted(words.unique())[:3])
    return (
        f"{len(words)} of {rows} rows have a word for an unknown patient ({named}): each counts as "
        "a patient of its own",
    )


def _from_paths(paths: pd.Series, patients: pd.Series, pattern: str) -> tuple[pd.Series, str]:
    """Fills unknown patients from the paths; returns the patients and a note."""
    search = re.compile(pattern).search
    named = paths.map(lambda path: (match[1] or "") if (match := search(path)) else "")
    if not (named != "").any():
        raise ParameterError(
            "patient_pattern",
            pattern,
            f"it is found in none of the {len(paths)} paths (the first is {paths.iloc[0]})",
        )
    lacking = patients == ""
    filled = patients.where(~lacking, named.map(plain_form))
    read = lacking & (filled != "")
    line = f"by patient_pattern: {read.sum()} images of {filled[read].nunique()} patients"
    unmatched = paths[filled == ""]
    if len(unmatched):
        more = ", ..." if len(unmatched) > 1 else ""
        line += f"; patients unknown where it does not match: {len(unmatched)} images"
        line += f" ({unmatched.iloc[0]}{more})"
    return filled, line
