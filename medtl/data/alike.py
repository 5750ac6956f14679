"""Normalization of names, and detection of near-equal ones."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

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
