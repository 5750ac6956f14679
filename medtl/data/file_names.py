r"""Names of files as text that can be printed, stored and written to a CSV.

A name is bytes on most systems. Those that are no UTF-8, and characters that cannot be printed, are
shown as escapes (`caf\xe9.png`), from which the file is found again.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def printable(name: str) -> str:
    """Returns a name, or a path, with an escape for each byte that is no text."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else _escape(each) for each in text)


def printable_text(text: str) -> str:
    """Returns a text as it is, and one that holds bytes of a file's name that are no text escaped.

    No store and no encoding takes such bytes (Python's surrogate escapes, PEP 383).
    """
    return printable(text) if any("\ud800" <= each <= "\udfff" for each in text) else text


def on_disk(root: Path, path: str) -> Path:
    """Finds the file or folder below `root` of which `path` is the printable name."""
    place = root / path
    if "\\x" not in path or os.path.lexists(place):
        return place
    name = _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(path))
    return root / os.fsdecode(name.replace(b"\0", b"\\x00"))  # no file has such a name


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
