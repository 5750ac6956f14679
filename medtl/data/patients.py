"""Patients of a table: normalization of names, and names in paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.text_normalization import cited, near_equal, plain_form, whole_numbers
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
            group is the patient, or its named groups joined by dashes. '' for none.

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
    named = paths.map(lambda path: _patient_of(match) if (match := search(path)) else "")
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


def _patient_of(match: re.Match[str]) -> str:
    """Returns the patient in a path: the named groups joined by dashes, else the first group."""
    parts = match.groupdict().values() if match.re.groupindex else match.groups()[:1]
    return "-".join(part for part in parts if part)


# Tuned on published folders: radiographs numbered by person, slides in separate folders, left and
# right eyes, video frames; and on images with running numbers or hashes as names, where nothing may
# be found.
LEAST_IMAGES, LEAST_PATIENTS, MANY_PATIENTS = 10, 5, 20
LEAST_TOGETHER = 0.5  # least share of images in groups of two or more
LARGEST = 0.25  # largest share of images in one group: more is a kind of image, not a patient
MOST_GROUPS = 0.7  # most groups per image
LEAST_OWN = 0.3  # least distinct last parts per group: `40X` is common to all slides
COVERED = 0.8  # least share of images with a match
MOST_LOOKED_AT, BLOCKS = 20_000, 20
"""Number of sampled paths, and size of the blocks of consecutive names they come in."""

_MOST_NUMBERS = 4  # most numbers per file name
_MOST_STARTS = 6  # most file name prefixes in one expression

_TOKEN = re.compile(r"[^\W_]+")
# letters, a number, and numbered words: hex digits of a hash do not match
_NAMED = re.compile(r"[^\W\d_]*\d+([^\W\d_]{3,}\d+)*[^\W\d_]*")
_DATE = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_KINDS = re.compile(
    r"(images?|imgs?|parts?|batch|folds?|train\w*|test\w*|val\w*|archive|data|dataset|set|"
    r"folder|dir|level|stage|grade|class|x)?[\W\d_]*x?",
    re.IGNORECASE,
)
"""Numbered folders other than patients."""


@dataclass(frozen=True)
class Likely:
    """Likely patients in paths: regular expression, count and examples."""

    pattern: str
    count: int
    some: tuple[str, ...]

    def line(self) -> str:
        """Formats the note."""
        return (
            f"patients unknown, and paths look as if they named {self.count} "
            f"({', '.join(self.some)}, ...), each maybe in several splits; if they are patients, "
            f"pass patient_pattern='{self.pattern}'"
        )


def likely_patients(frame: pd.DataFrame) -> Likely | None:
    """Finds likely patients in the paths of rows without one; None if there are none.

    A patient is a number, with its prefix, in the file name or a folder name that several images
    of one class share. Of several candidates the one with the largest groups is returned, if it has
    at least 20 of them.

    Args:
        frame: table with `path`, `label`, `patient` and `split`.
    """
    rows = frame[frame["patient"] == ""]
    if len(rows) < max(LEAST_IMAGES, len(frame) / 2):
        return None
    every = rows["path"]
    if len(rows) > MOST_LOOKED_AT:
        blocks = np.array_split(np.argsort(every.to_numpy(object), kind="stable"), BLOCKS)
        rows = rows.iloc[np.concatenate([each[: MOST_LOOKED_AT // BLOCKS] for each in blocks])]
    paths = rows["path"].tolist()
    strata = pd.factorize(rows["label"] + "\n" + rows["split"])[0]
    found = [*_in_folders(paths, rows["label"].tolist(), strata), *_in_names(paths, strata)]
    if not found:
        return None
    many = [each for each in found if each.count >= MANY_PATIENTS]
    likely = min(many or found, key=lambda each: each.count)
    if len(rows) == len(every):
        return likely
    matches = map(re.compile(likely.pattern).search, every)
    return _likely(likely.pattern, [match[1] if match else None for match in matches])


def _in_folders(paths: list[str], labels: list[str], strata: np.ndarray) -> list[Likely]:
    found = []
    folders = [path.split("/")[:-1] for path in paths]
    for depth in range(max(map(len, folders))):
        names = [
            each[depth]
            if len(each) > depth
            and any(map(str.isdigit, each[depth]))
            and each[depth] != label
            and not _KINDS.fullmatch(each[depth])
            else None
            for each, label in zip(folders, labels, strict=True)
        ]
        groups = [
            "/".join(each[: depth + 1]) if name else None
            for each, name in zip(folders, names, strict=True)
        ]
        if _like_patients(groups, names, strata):
            found.append(_likely(f"^{'[^/]+/' * depth}([^/]+)/", names))
    return found


def _in_names(paths: list[str], strata: np.ndarray) -> list[Likely]:
    """Returns candidates from the first numbers of file names, per prefix if necessary.

    A number common to all names of a prefix, as in `NORMAL2-IM-0012`, is not a patient.
    """
    names = [path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in paths]
    numbers = [_numbers(name) for name in names]
    starts = pd.Series(
        [name[: each[0][0]] if each else None for name, each in zip(names, numbers, strict=True)]
    )
    found = []
    for count in range(1, _MOST_NUMBERS + 1):
        groups = _up_to(names, numbers, count)
        of_start = pd.Series(groups).groupby(starts).agg(["size", "nunique"])
        shared = ((of_start["size"] >= LEAST_IMAGES) & (of_start["nunique"] == 1)).any()
        if not shared and _like_patients(groups, _last(names, numbers, count), strata):
            found.append(_likely(rf"({_number(count)})[^/]*$", groups))
    return found or _by_beginnings(names, numbers, starts, strata)


def _by_beginnings(
    names: list[str],
    numbers: list[list[tuple[int, int]]],
    starts: pd.Series,
    strata: np.ndarray,
) -> list[Likely]:
    parts, groups = [], np.full(len(names), None, object)
    for start in starts.value_counts().index[:_MOST_STARTS]:
        rows = np.flatnonzero(starts == start)
        of_start = [names[row] for row in rows], [numbers[row] for row in rows]
        for count in range(1, _MOST_NUMBERS + 1):
            here = _up_to(*of_start, count)
            if _like_patients(here, _last(*of_start, count), strata[rows]):
                parts.append(re.escape(start) + r"\d+" + _number(count - 1))
                groups[rows] = here
                break
    if sum(each is not None for each in groups) < len(names) / 2:
        return []
    return [_likely(f"(?:^|/)({'|'.join(parts)})[^/]*$", groups.tolist())]


def _number(count: int) -> str:
    return r"[^/\d]*\d+" * count


def _numbers(name: str) -> list[tuple[int, int]]:
    """Returns the spans of the first numbers of a file name, up to a possible hash."""
    dates = [match.span() for match in _DATE.finditer(name)]
    places: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(name):
        if not any(map(str.isdigit, token[0])):
            continue
        if not _NAMED.fullmatch(token[0]):
            break
        places += [
            (token.start() + match.start(), token.start() + match.end())
            for match in re.finditer(r"\d+", token[0])
        ]
    in_dates = [any(low <= start < high for low, high in dates) for start, _ in places]
    # a date alone is a day of many patients
    return [] if in_dates and in_dates[0] else places


def _up_to(names: list[str], numbers: list[list[tuple[int, int]]], count: int) -> list[str | None]:
    """Truncates each name after its `count`-th number; None if it has fewer."""
    return [
        name[: each[count - 1][1]] if len(each) >= count else None
        for name, each in zip(names, numbers, strict=True)
    ]


def _last(names: list[str], numbers: list[list[tuple[int, int]]], count: int) -> list[str | None]:
    return [
        name[slice(*each[count - 1])] if len(each) >= count else None
        for name, each in zip(names, numbers, strict=True)
    ]


def _like_patients(
    groups: Sequence[str | None], own: Sequence[str | None], strata: np.ndarray
) -> bool:
    """Returns whether size and number of groups are plausible for patients.

    Args:
        groups: groups of N images, None without one.
        own: the part of the path that distinguishes each group from its siblings.
        strata: int [N], class and split of each image. Running numbers restart in each class, so
            only images of one class that share a number count as a group.
    """
    codes, found = pd.factorize(pd.array(list(groups), dtype=object))
    there = codes >= 0
    count = int(there.sum())
    if count < max(LEAST_IMAGES, COVERED * len(codes)) or len(found) < LEAST_PATIENTS:
        return False
    sizes = np.bincount(codes[there])
    cells = pd.Series(codes[there]).groupby([strata[there], codes[there]]).transform("size")
    return bool(
        len(found) <= MOST_GROUPS * count
        and sizes.max() <= LARGEST * count
        and (cells > 1).mean() >= LEAST_TOGETHER
        and pd.Series(list(own)).nunique() >= LEAST_OWN * len(found)
    )


def _likely(pattern: str, groups: Sequence[str | None]) -> Likely:
    named = sorted({each for each in groups if each})
    return Likely(pattern, len(named), tuple(named[:2]))
