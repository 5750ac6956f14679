"""Normalization of labels, and detection of separators other than the bar."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import pandas as pd

from medtl.data.alike import cited, near_equal, plain_form, whole_numbers
from medtl.data.words import BETWEEN, UNKNOWN

NO_LABEL = frozenset(("nan", "na", "n/a", "<na>", "#n/a", "nat", "null"))
"""Placeholders for a missing label, case-insensitive."""

SIGNS = (";", ",", "/", "+", "&")
"""Label separators of published tables, other than the bar."""

_LIST = re.compile(r"\[.*,.*\]|\{.*,.*\}")


def in_one_form(labels: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
    """Normalizes equal labels to one form; returns the labels and notes.

    Unicode forms of one label are merged, and so are `1` and `1.0`. Labels that differ only in
    case, zeros, spaces or punctuation stay different and are listed in a note.

    Args:
        labels: text; several labels of one image joined by a bar, unknown ones after a ?.
    """
    texts = labels.unique().tolist()
    written = {part.removeprefix(UNKNOWN).strip() for text in texts for part in _parts(text)}
    plain = {name: plain_form(name) for name in written}
    names = set(plain.values())
    numbers = {name: whole for name, whole in whole_numbers(names).items() if whole in names}
    notes = []
    twice = sorted(name for name, forms in Counter(plain.values()).items() if forms > 1)
    if twice:
        shown = cited([name] for name in twice)
        notes.append(f"labels in two forms of Unicode, or with other spaces, are one: {shown}")
    if numbers:
        merged = sorted((whole, name) for name, whole in numbers.items())
        notes.append(f"labels that are one number are one: {cited(merged)}")
    alike = near_equal(names - set(numbers))
    if alike:
        notes.append(
            "labels that differ only in case, zeros, spaces or signs are different ones: "
            f"{cited(alike)}; give equal ones one name"
        )

    def form(part: str) -> str:
        name = plain[part.removeprefix(UNKNOWN).strip()]
        return f"{UNKNOWN if part.startswith(UNKNOWN) else ''}{numbers.get(name, name)}"

    forms = {text: BETWEEN.join(map(form, _parts(text))) for text in texts}
    return labels.map(forms), tuple(notes)


def joined_by(labels: Iterable[str]) -> dict[str, str]:
    """Finds labels joined by a separator other than the bar, and the separator.

    A label counts as joined if each part is also a label of other images, alone or in a list
    separated by semicolons. A list in brackets counts too, with a comma as separator.
    """
    texts = set(labels)
    found = {text: "," for text in texts if _LIST.fullmatch(text)}
    alone = {text.casefold() for text in texts}
    for sign in SIGNS:
        parts = {text: _folded(text, sign) for text in texts if sign in text}
        times = Counter(part for each in parts.values() for part in each)
        for text, each in parts.items():
            elsewhere = [part in alone or (sign == ";" and times[part] > 1) for part in each]
            if len(each) > 1 and all(elsewhere):
                found.setdefault(text, sign)
    return found


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(BETWEEN)]


def _folded(text: str, sign: str) -> set[str]:
    return {part.strip().casefold() for part in text.split(sign)}
