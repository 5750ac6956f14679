"""Names and lines of others in Markdown: shown as they are, whatever signs they have."""

from __future__ import annotations

import re

# What begins markup or HTML: within a line (no underscore within a word does), and at its start.
_MARKUP = re.compile(r"[\\`*\[\]<>|~&$]|(?<!\w)_|_(?!\w)|^[#=+-](?!\d)|^\d+(?=[.)](?:\s|$))")


def plain(text: str) -> str:
    """A text in one line with a backslash before each sign that would be markup."""
    return _MARKUP.sub(_escaped, " ".join(str(text).split()))


def code(text: str) -> str:
    """A name in one line as code, with the backticks that its own need, and no HTML."""
    line = " ".join(str(text).split())
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line[:1] == "`" or line[-1:] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    return f"{sign}\\" if sign.isdigit() else f"\\{sign}"
