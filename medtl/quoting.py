"""Entries of a parameter's value, with quotation marks around those that hold its signs.

The rule is that of a CSV (RFC 4180): an entry in quotation marks may hold any sign, and a quotation
mark within it is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medtl.errors import ParameterError

SIGNS = ",=|"
"""Signs that separate entries in one parameter or another."""


def fields(name: str, text: str, signs: str) -> Iterator[tuple[str, str]]:
    """Yields the entries of a text without their quotation marks, each with the sign after it.

    The sign after the last entry is ''. Spaces around an entry do not count.

    >>> list(fields("positive", 'a, "b, c"', ","))
    [('a', ','), ('b, c', '')]

    Args:
        name: of the parameter, for messages.
        text: its value.
        signs: those that separate entries here, each one character.

    Raises:
        ParameterError: quotation marks are not closed, or text stands beside them.
    """
    entry = re.compile(
        rf'\s*(?:"(?P<quoted>(?:[^"]|"")*)"|(?!")(?P<plain>[^{signs}]*))\s*(?P<sign>[{signs}]|\Z)'
    )
    place, sign = 0, signs
    while sign:
        found = entry.match(text, place)
        if found is None:
            raise ParameterError(
                name,
                text,
                'quotation marks around a whole entry, as in a CSV file: "A, B"; '
                "one within them is written twice",
            )
        place, sign = found.end(), found["sign"]
        quoted = found["quoted"]
        yield (found["plain"].strip() if quoted is None else quoted.replace('""', '"')), sign


def quoted(entry: str) -> str:
    """Puts quotation marks around an entry that holds a sign, or one of them.

    >>> quoted("stage=0"), quoted("normal")
    ('"stage=0"', 'normal')
    """
    if any(sign in entry for sign in f'{SIGNS}"') or entry != entry.strip():
        return '"{}"'.format(entry.replace('"', '""'))
    return entry
