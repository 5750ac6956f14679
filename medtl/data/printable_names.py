r"""Printable forms of file names, for the console, stores and CSV files.

File names are bytes on most systems. Bytes that are not UTF-8 and unprintable characters are
written as escapes (`caf\xe9.png`), which can be mapped back to the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def printable(name: str) -> str:
    """Returns a name or path with invalid bytes escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def printable_text(text: str) -> str:
    """Returns a text with invalid bytes of file names escaped, if it has any.

    Stores and encodings reject such bytes (Python's surrogate escapes, PEP 383).
    """
    return printable(text) if any("\ud800" <= each <= "\udfff" for each in text) else text


def on_disk(root: Path, path: str) -> Path:
    """Returns the file or folder below `root` with the printable name `path`."""
    place = root / path
    if "\\x" not in path or os.path.lexists(place):
        return place
    name = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(path))
    return root / os.fsdecode(name.replace(b"\0", b"\\x00"))  # file names cannot contain NUL


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
