"""Normalization of names and labels, and detection of near-equal ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

import pandas as pd

from medtl.label_syntax import BETWEEN, UNKNOWN

_WHOLE = re.compile(r"(-?\d+)\.0+")
_FRACTION = re.compile(r"-?\d+\.\d*[1-9]\d*")
_PARTS = re.compile(r"\d+|[^\W\d_]+")
_SHOWN = 3  # names, or sets of names, per line


def plain_form(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC), with single spaces and none around it."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def whole_numbers(names: Iterable[str]) -> dict[str, str]:
    """Maps names that are whole numbers with a decimal point to integers: `12.0` to `12`.

    The result is empty if any name has a fraction: `3.0` beside `3.1` is a name of two parts.
    """
    names = set(names)
    if any(map(_FRACTION.fullmatch, names)):
        return {}
    return {name: match[1] for name in names if (match := _WHOLE.fullmatch(name))}


def near_equal(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Finds names that differ only in case, leading zeros, punctuation or spaces.

    >>> near_equal(["P1", "p-01", "P2", "0123", "123"])
    [('0123', '123'), ('P1', 'p-01')]
    """
    sets = defaultdict(list)
    for name in sorted(set(names)):
        folded = unicodedata.normalize("NFKC", name).casefold()
        parts = tuple(part.lstrip("0") or "0" for part in _PARTS.findall(folded))
        sets[parts].append(name)
    return [tuple(alike) for parts, alike in sets.items() if len(alike) > 1 and parts]


def cited(sets: Iterable[Iterable[str]]) -> str:
    """Formats the first sets of names, and the number of all if there are more."""
    texts = [" and ".join(names) for names in sets]
    more = f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return f"{', '.join(texts[:_SHOWN])}{more}"


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
