"""Paths that look as if they named patients, and the expression that reads them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Chosen on folders as they are published: radiographs numbered by person, slides in folders of
# their own, left and right eyes, frames of videos; and on images that are only counted up, or are
# named by hashes, where nothing may be found.
LEAST_IMAGES, LEAST_PATIENTS, MANY_PATIENTS = 10, 5, 20
LEAST_TOGETHER = 0.5  # share of the images that are not alone in their group
LARGEST = 0.25  # share of the images in one group: more is a kind of image, not a patient
MOST_GROUPS = 0.7  # groups an image
LEAST_OWN = 0.3  # different last parts a group: `40X`, which all slides have, names none of them
COVERED = 0.8  # share of the images that have the part at all
MOST_LOOKED_AT, BLOCKS = 20_000, 20
"""Paths that are looked at, and the blocks of neighbours by name in which they are taken."""

_MOST_NUMBERS = 4  # of a file name that are looked at
_MOST_STARTS = 6  # beginnings of file names that one expression lists

_TOKEN = re.compile(r"[^\W_]+")
# letters, a number, and words with numbers behind: the hex digits of a hash are none of these
_NAMED = re.compile(r"[^\W\d_]*\d+([^\W\d_]{3,}\d+)*[^\W\d_]*")
_DATE = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
_KINDS = re.compile(
    r"(images?|imgs?|parts?|batch|folds?|train\w*|test\w*|val\w*|archive|data|dataset|set|"
    r"folder|dir|level|stage|grade|class|x)?[\W\d_]*x?",
    re.IGNORECASE,
)
"""Folders that are numbered and name no patient."""


@dataclass(frozen=True)
class Likely:
    """Patients that paths seem to name: the expression whose first group they are, and some."""

    pattern: str
    count: int
    some: tuple[str, ...]

    def line(self) -> str:
        """What a reader is told of them."""
        return (
            f"patients unknown, and paths look as if they named {self.count} "
            f"({', '.join(self.some)}, ...), who may be in several splits; if they are patients, "
            f"pass patient_pattern='{self.pattern}'"
        )


def likely_patients(frame: pd.DataFrame) -> Likely | None:
    """What looks like a patient in the paths of the rows without one; None where nothing does.

    It is a number, with what stands before it, in the file name or in the name of a folder, that
    several images of one class share. Of several such, the one that makes the largest groups, as
    long as there are 20 of them.

    Args:
        frame: with `path`, `label`, `patient` and `split`.
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
    """By the first numbers of file names; where no one count of them suits all, by beginnings.

    A number that all names of one beginning share, as in `NORMAL2-IM-0012`, is no patient.
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
    """Where the first numbers of a file name begin and end, up to a part that may be a hash."""
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
    # a date alone is a day on which many came
    return [] if in_dates and in_dates[0] else places


def _up_to(names: list[str], numbers: list[list[tuple[int, int]]], count: int) -> list[str | None]:
    """Each name up to the end of its so-manieth number; None where it has fewer."""
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
    """Whether groups of images are of a size and a number as those of patients are.

    Args:
        groups: of N images, None where it has none.
        own: the part of its path that tells each group from others beside it.
        strata: int [N], the class and split of each image. Images are counted up anew in each
            class, so only those of one class that share a number are together.
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
