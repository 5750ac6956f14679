"""Settings of data: what to read, and how."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.imaging.window_syntax import ALLOWED, FITS, SQUASH, linear_windows
from medtl.settings.fields import (
    DATA,
    Settings,
    comma_list,
    named_columns,
    option,
)

FIRST, ALL = "first", "all"
AUTO, PLAIN = "auto", "plain"
IGNORE = "ignore"
MAJORITY, ANY, SOFT = "majority", "any", "soft"
NAMED_COLUMNS = ("path", "label", "patient", "split", "fold", "case", "modality")
CARVED = 0.15
"""Share of all images that goes to valid, and by default to test, where they are not given."""


@dataclass(frozen=True)
class Reading:
    """Reading options; invalid data is refused unless allowed."""

    duplicates: str = "refuse"  # or allow: identical images under two labels or in two splits
    unreadable: str = "refuse"  # or skip: images that cannot be decoded
    missing: str = "refuse"  # or mask: cases without the image of a modality
    positive: str = (
        ""  # labels that make an image positive (see `two_classes`); '' keeps all labels
    )
    frames: str = FIRST  # or all, or a number from 1: which of a file with several frames
    outside: str = "refuse"  # or allow: paths outside the folder of a CSV
    patient_pattern: str = ""  # regular expression whose first group in a path is the patient
    layout: str = AUTO  # or plain: published layouts are not recognised
    columns: str = ""  # columns of a table: NAME:COLUMN, see `NAMED_COLUMNS`
    path_pattern: str = ""  # path of an image, {} stands for the value of its column
    splits: str = ""  # names of the splits: VALUE:SPLIT
    uncertain: str = ""  # or ignore (the same), positive, negative: findings marked as -1
    readers: str = ""  # or majority, any, all, soft: several rows of one image
    ordinal: str = ""  # all classes in their order, from the lowest grade on
    holdout: float = CARVED  # share drawn as test split where none is given
    folds: int = 0  # of a cross-validation of the rest, 0 for none

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Reading:
        """Takes the options from settings by name; others keep their defaults."""
        kinds = {"holdout": float, "folds": int}
        names = [each.name for each in dataclasses.fields(cls) if each.name in settings]
        return cls(**{name: kinds.get(name, str)(settings[name]) for name in names})


def check_pattern(pattern: str) -> None:
    """Raises `ParameterError` if a pattern is not a regular expression with a group."""
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        allowed = f"a regular expression, and this is none: {error}"
        raise ParameterError("patient_pattern", pattern, allowed) from error
    if not groups:
        allowed = "a regular expression with (...) around the patient, as in (person[0-9]+)_"
        raise ParameterError("patient_pattern", pattern, allowed)


def check_columns(columns: str) -> dict[str, tuple[str, ...]]:
    """Parses the parameter `columns`; refuses unknown names and lists other than of labels."""
    named = named_columns("columns", columns)
    for name, listed in named.items():
        if name not in NAMED_COLUMNS or (len(listed) > 1 and name != "label"):
            allowed = f"NAME:COLUMN of {', '.join(NAMED_COLUMNS)}; several columns for label alone"
            raise ParameterError("columns", columns, allowed)
    return named


def check_splits(splits: str) -> dict[str, str]:
    """Parses the parameter `splits`: the split of each value."""
    named = {value: listed[0] for value, listed in named_columns("splits", splits).items()}
    if not set(named.values()) <= {"train", "valid", "test"}:
        raise ParameterError("splits", splits, "a comma list of VALUE:train, :valid or :test")
    return named


@dataclass(frozen=True)
class DataSettings(Settings):
    """Data set and reading options."""

    data: str = option(
        "phantoms",
        "phantoms (embedded), a folder of CLASS/... or of splits, a table such as CSV, or a "
        "published data set (docs/data.md)",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    duplicates: str = option(
        "refuse",
        "identical images under two labels or in two splits",
        choices=("refuse", "allow"),
        changes_result=False,
        decides=DATA,
    )
    unreadable: str = option(
        "refuse",
        "images that cannot be read",
        choices=("refuse", "skip"),
        changes_result=False,
        decides=DATA,
    )
    missing: str = option(
        "refuse",
        "cases without the image of a modality",
        choices=("refuse", "mask"),
        changes_result=True,
        decides=DATA,
    )
    positive: str = option(
        "",
        "comma list of the labels that make an image positive, or any; empty keeps all classes",
        changes_result=True,
        decides=DATA,
    )
    frames: str = option(
        FIRST,
        "of several frames or pages in a file: first, all (a sample each), or a number",
        changes_result=True,
        decides=DATA,
    )
    outside: str = option(
        "refuse",
        "paths that lead out of the folder of a CSV, themselves or by a link",
        choices=("refuse", "allow"),
        changes_result=False,
        decides=DATA,
    )
    patient_pattern: str = option(
        "",
        "regular expression whose first group, found in the path of an image, is its patient; or "
        "whose named groups are, joined",
        changes_result=True,
        decides=DATA,
    )

    layout: str = option(
        AUTO,
        "published layouts of data: recognised, or read as any other folder or table",
        choices=(AUTO, PLAIN),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    columns: str = option(
        "",
        "columns of a table, as path:image_id,label:dx,patient:pid,split:set; several columns of "
        "findings as label:A|B|C",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    path_pattern: str = option(
        "",
        "path of an image, as images/{}.jpg; {} stands for the value of the column path",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    splits: str = option(
        "",
        "values of the column split, as 1:train,2:valid,3:test",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    uncertain: str = option(
        "",
        "findings that a table marks as uncertain (-1); empty is ignore",
        choices=("", IGNORE, "positive", "negative"),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    readers: str = option(
        "",
        "several rows of one image, as by several readers, refused if empty; with any and all "
        "labels are findings; with soft training fits the share of readers",
        choices=("", MAJORITY, ANY, ALL, SOFT),
        changes_result=True,
        decides=DATA,
        added_later=True,
    )
    ordinal: str = option(
        "",
        "all classes from the lowest grade to the highest, as grade0,grade1,grade2: adds "
        "quadratic weighted kappa",
        changes_result=True,
        decides=DATA,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ordinal and len(comma_list("ordinal", self.ordinal)) < 2:
            allowed = "a comma list of all classes, two or more, from the lowest grade on"
            raise ParameterError("ordinal", self.ordinal, allowed)
        check_columns(self.columns)
        check_splits(self.splits)
        if self.path_pattern and "{}" not in self.path_pattern:
            allowed = "a path with {} for the value of the column path, as images/{}.jpg"
            raise ParameterError("path_pattern", self.path_pattern, allowed)
        if self.frames not in (FIRST, ALL) and not (
            self.frames.isdecimal() and int(self.frames) >= 1
        ):
            raise ParameterError("frames", self.frames, f"{FIRST}, {ALL}, or a number from 1")
        if self.patient_pattern:
            check_pattern(self.patient_pattern)
        if self.positive:
            comma_list("positive", self.positive)

    @property
    def reading(self) -> Reading:
        """Reading options of these settings."""
        return Reading.of(dataclasses.asdict(self))


@dataclass(frozen=True)
class RenderingSettings(DataSettings):
    """Data set, and how its images become the squares that a network gets."""

    window: str = option(
        AUTO,
        "intensities: auto (DICOM's own window, else the range of the image), percentiles, or up "
        "to three windows CENTRE/WIDTH in the units of the file, as 40/400, a channel each",
        changes_result=True,
        added_later=True,
    )
    fit: str = option(
        SQUASH,
        "images that are not square: stretched, padded with black, or cut in the middle",
        choices=FITS,
        changes_result=True,
        added_later=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            linear_windows(self.window)
        except ValueError as error:
            raise ParameterError("window", self.window, ALLOWED) from error


OF_DATA = frozenset(field.name for field in dataclasses.fields(DataSettings))
"""Parameters whose effect on results is covered by `Dataset.identity`."""
