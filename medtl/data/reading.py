"""Options of reading a data set: positive labels, and handling of invalid data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from medtl.errors import ParameterError

FIRST, ALL = "first", "all"


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

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Reading:
        """Takes the options from settings by name; others keep their defaults."""
        names = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in settings.items() if name in names})


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
