"""Escaping of names and foreign text in Markdown."""

from __future__ import annotations

import re

# Start of markup or HTML: within a line (except underscores within a word), and at its beginning.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|^[#=+-](?!\d)|^\d+(?=[.)](?:\s|$))")


def plain(text: str) -> str:
    """Escapes a text as one line, with a backslash before each markup character."""
    return _MARKUP.sub(_escaped, " ".join(str(text).split()))


def code(text: str) -> str:
    """Formats a name as inline code, with enough backticks and without HTML."""
    line = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"
