"""Quoting of entries in parameter values.

As in CSV (RFC 4180), a quoted entry may contain any character, and a quotation mark within it is
doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medtl.errors import ParameterError

SIGNS = ",=|"
"""Separators of entries in any parameter."""


def fields(name: str, text: str, signs: str) -> Iterator[tuple[str, str]]:
    """Yields the unquoted entries of a text, each with the separator after it.

    The separator after the last entry is ''. Spaces around an entry are ignored.

    >>> list(fields("positive", 'a, "b, c"', ","))
    [('a', ','), ('b, c', '')]

    Args:
        name: name of the parameter, for messages.
        text: its value.
        signs: the separators, one character each.

    Raises:
        ParameterError: unclosed quotation marks, or text beside them.
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
    """Quotes an entry that contains a separator or a quotation mark.

    >>> quoted("stage=0"), quoted("normal")
    ('"stage=0"', 'normal')
    """
    if any(sign in entry for sign in f'{SIGNS}"') or entry != entry.strip():
        return '"{}"'.format(entry.replace('"', '""'))
    return entry
