"""Recognition of CSV columns: case-insensitive, and by similar names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from medtl.data.reader_votes import VOTES
from medtl.data.sources.given_columns import finding_columns
from medtl.errors import MedtlError
from medtl.label_syntax import BETWEEN
from medtl.settings.fields import quoted

MEANT = ("path", "label", "patient", "split")
CASE_COLUMNS = ("case", "modality")
"""Columns that are used together; in other case, one alone is ignored."""

FILE, FRAME = "frame_file", "frame_number"
"""Columns of a table that uses frames other than the first (see `frames`)."""

RESERVED = ("content", "width", "height", "mode", "reason", FILE, FRAME, VOTES)
"""Columns that are derived from the images; equally named ones of a CSV are renamed."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}
"""Common names of splits (case-insensitive), and the names used here."""

_ID = "(id|identifier|no|nr|num|number|name|uid|code|key|hash|idx|index|instanceuid)"
_PATIENT = re.compile(
    "(anonymi[sz]ed|deidentified|pseudonym(i[sz]ed)?)?"
    f"((patients?|subjects?|participants?|persons?){_ID}?|(pat|pt|subj){_ID})"
    "|id(patient|subject|participant|person)|mrn|pid"
)
_STAND_IN = re.compile(f"(case|study|exam|examination|accession|lesion|slide|visit){_ID}|case")
_SPLIT = re.compile("(data|dataset|official|original)?splits?(name)?|set|subset|partition")
_FOLD = re.compile("(k|cv|test|valid|val)?folds?(id|no|nr|num|number|idx|index)?")
_OF_LABEL = re.compile("(class|diagnosis|diagnoses|dx|target|finding|category)(s|es)?(name|id)?")
_OF_PATH = re.compile("(image|img|file|filename|filepath|imagepath|imagefile|imgpath)(s|name|id)?")


def in_known_columns(file: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Renames the columns to the names used here; returns the rows and notes.

    `MEANT` are case-insensitive. Without `patient` (or `split`), the only suitable column of a
    similar name is used; columns named as derived ones (`RESERVED`) become `csv_NAME`.

    Raises:
        MedtlError: `path` or `label` is missing, or two columns could have the same meaning.
    """
    frame = _in_small_letters(file, frame)
    _check_needed(file, frame)
    frame, of_patients = _with_patient(file, frame)
    frame, of_splits = _with_split(file, frame)
    frame, of_folds = _with_fold(frame)
    frame, of_clashes = _without_clashes(frame)
    return frame, (*of_patients, *of_splits, *of_folds, *of_clashes)


def _in_small_letters(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    names = {name: [each for each in frame if each.casefold() == name] for name in MEANT}
    cases = {name: [each for each in frame if each.casefold() == name] for name in CASE_COLUMNS}
    if all(cases.values()):
        names |= cases
    for found in names.values():
        if len(found) > 1:
            raise MedtlError(
                f"{file} has the columns {' and '.join(found)}: keep one, or give the others "
                "another name"
            )
    return frame.rename(columns={found[0]: name for name, found in names.items() if found})


def _check_needed(file: Path, frame: pd.DataFrame) -> None:
    missing = [name for name in ("path", "label") if name not in frame]
    if not missing:
        return
    given = []
    for name in missing:
        near = _near(frame, _OF_PATH if name == "path" else _OF_LABEL)
        if not near and name == "label":
            near = list(finding_columns(frame))
            near = near if len(near) > 1 else []
            given += [f"label:{BETWEEN.join(map(_quoted, near))}"] if near else []
        elif near:
            given.append(f"{name}:{_quoted(near[0])}")
    hint = f"; if that is right, pass columns={','.join(given)}" if given else ""
    raise MedtlError(
        f"{file} lacks the column {' and '.join(missing)}; it has {', '.join(frame.columns)}{hint}"
    )


def _quoted(name: str) -> str:
    return f'"{name}"' if ":" in name else quoted(name)


def _with_patient(file: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    near = _near(frame, _PATIENT, lambda values: values.nunique() > 1)
    if "patient" in frame:
        return frame, _not_used(near, "the patient is the column patient")
    notes: list[str] = []
    if not near:
        near, notes = _stand_in(frame)
    if len(near) > 1 and not all(_same_rows(frame[near[0]], frame[each]) for each in near[1:]):
        raise MedtlError(
            f"{file} has the columns {' and '.join(near)}, of which each may name the patient: "
            "rename the right one to patient"
        )
    if not near:
        return frame.assign(patient=""), tuple(notes)
    if not notes:
        notes = [f"the column {near[0]} is taken for the patient"]
        notes += _not_used(near[1:], f"it groups images as {near[0]} does")
    return frame.rename(columns={near[0]: "patient"}), tuple(notes)


def _stand_in(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Returns the column that stands in for a missing patient column, and notes."""
    near = _near(frame, _STAND_IN, lambda values: 1 < values.nunique() < len(values))
    if len(near) > 1:
        line = f"no column patient: rename the one of {', '.join(near)} that tells patients apart"
        return [], [line]
    return near, [f"no column patient: images of one {name} count as one patient" for name in near]


def _with_split(file: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    own = [name for name in frame if name not in (*MEANT, *CASE_COLUMNS)]
    near = [name for name in own if _is_split(frame[name])]
    notes: list[str] = []
    if "split" in frame:
        return frame, _not_used(near, "the split is the column split")
    if len(near) > 1:
        raise MedtlError(
            f"{file} has the columns {' and '.join(near)}, of which each may be the split: "
            "rename the right one to split"
        )
    if near:
        line = f"the column {near[0]} is taken for the split"
        return frame.rename(columns={near[0]: "split"}), (line,)
    for name in _near(frame, _SPLIT):
        values = ", ".join(sorted(frame[name].unique())[:3])
        reason = f"as a split its values ({values}) would have to be train, valid or test"
        notes += _not_used([name], reason)
    return frame.assign(split=""), tuple(notes)


def _with_fold(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Names the column of cross-validation folds `fold`, and strips its values.

    Another column of this name becomes `csv_fold`.
    """
    near = [name for name in _near(frame, _FOLD) if not _is_split(frame[name])]
    exact = [name for name in near if name.casefold() == "fold"]
    if len(exact or near) != 1:
        notes = _not_used(near, "rename the one of the folds to fold")
        return frame.rename(columns={"fold": "csv_fold"}), notes
    (name,) = exact or near
    others = _not_used([each for each in near if each != name], f"the fold is the column {name}")
    taken = () if exact else (f"the column {name} is taken for the fold",)
    names = {"fold": "csv_fold", name: "fold"}
    return frame.assign(**{name: frame[name].str.strip()}).rename(columns=names), (*taken, *others)


def _is_split(values: pd.Series) -> bool:
    """Returns whether all values are names of splits, at least two of them different."""
    named = values.str.strip().str.casefold()
    named = named[named != ""].map(SPLIT_NAMES)
    return not named.isna().any() and named.nunique() > 1


def _without_clashes(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    modalities = frame["modality"].str.strip().unique() if set(CASE_COLUMNS) <= set(frame) else ()
    reserved = {*RESERVED, *(f"image_{name}" for name in modalities)}
    names = {}
    for name in frame:
        if name in reserved:
            own = f"csv_{name}"
            while own in frame:
                own += "_"
            names[name] = own
    if not names:
        return frame, ()
    renamed = ", ".join(f"{name} ({own} here)" for name, own in names.items())
    line = f"columns of the CSV that have the names of what images have are renamed: {renamed}"
    return frame.rename(columns=names), (line,)


def _near(
    frame: pd.DataFrame,
    names: re.Pattern[str],
    holds: Callable[[pd.Series], bool] = lambda values: True,
) -> list[str]:
    """Returns the columns without a known name that match the pattern and have suitable values."""
    return [
        name
        for name in frame
        if name not in (*MEANT, *CASE_COLUMNS)
        and names.fullmatch(re.sub(r"[\W_]+", "", name).casefold())
        and holds(frame[name])
    ]


def _same_rows(one: pd.Series, other: pd.Series) -> bool:
    """Returns whether two columns are equal for the same rows."""
    pairs = pd.DataFrame({"one": one, "other": other}).drop_duplicates()
    return len(pairs) == one.nunique() == other.nunique()


def _not_used(names: list[str], reason: str) -> tuple[str, ...]:
    if not names:
        return ()
    one = len(names) == 1
    columns = f"{'the column' if one else 'the columns'} {', '.join(names)}"
    return (f"{columns} {'is' if one else 'are'} not used: {reason}",)
