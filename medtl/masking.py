"""Passwords in texts: what stands in a URL as a password is never shown, logged or printed."""

from __future__ import annotations

import re

# Greedy up to the last @: a password in which an @ was not escaped is hidden as a whole.
# The scheme is looked for once in each run of letters: a long run would else take minutes.
_IN_URL = re.compile(r"((?<![\w+.-])[\w+.-]*://[^\s:/@?#]*):[^\s\"'<>]*@")
_IN_QUERY = re.compile(r"(\bpassword=)[^\s&;,\"'<>]+", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with `***` in place of each password in a URL (`://USER:PASSWORD@`, `password=`)."""
    return _IN_QUERY.sub(r"\1***", _IN_URL.sub(r"\1:***@", text))
