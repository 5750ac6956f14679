"""Audit log of a served model: JSON lines without pixels and without text of an image file.

A line per answered row. Images are named by the SHA-256 of their files, so that a line can be found
again by whoever has the file. `MEDTL_AUDIT` names the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from medtl.errors import MedtlError

VARIABLE = "MEDTL_AUDIT"
LARGEST = 64 * 2**20  # bytes of a file, after which the next one is begun; no file is removed


class AuditLog:
    """Files of JSON lines in a folder, one after the other; each process has its own.

    Safe for threads.
    """

    def __init__(self, folder: Path, largest: int = LARGEST) -> None:
        self._folder, self._largest = folder, largest
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._next()
        except OSError as error:
            raise MedtlError(
                f"the audit log cannot be written ({error}): set {VARIABLE} to another folder"
            ) from error

    def write(self, records: Iterable[Mapping[str, object]]) -> None:
        """Appends a line per record and flushes the file.

        Raises:
            MedtlError: the disk is full, or the file cannot be written.
        """
        lines = "".join(json.dumps(record) + "\n" for record in records)
        with self._lock:
            try:
                if self._file.tell() >= self._largest:
                    self._file.close()
                    self._file = self._next()
                self._file.write(lines)
                self._file.flush()
            except (OSError, ValueError) as error:
                raise MedtlError(
                    f"the answer is withheld, since the audit log cannot be written ({error})"
                ) from error

    def _next(self) -> IO[str]:
        """Creates a file named by time, host and process."""
        began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{began}-{socket.gethostname()}-{os.getpid()}.jsonl"
        return (self._folder / name).open("x", encoding="utf-8")


def open_audit_log() -> AuditLog | None:
    """Opens the audit log in the folder of `MEDTL_AUDIT`; None if it is not set.

    Raises:
        MedtlError: the folder cannot be written.
    """
    named = os.environ.get(VARIABLE)
    return AuditLog(Path(named).expanduser()) if named else None


def file_hash(file: object) -> str | None:
    """Returns the SHA-256 of an image file in hex; None for anything but bytes."""
    return hashlib.sha256(file).hexdigest() if isinstance(file, bytes) else None


def without_details(error: object) -> str | None:
    """Cuts the details in parentheses from an error, which may quote text of the file.

    >>> without_details("the image cannot be read (unknown element DOE^JANE)")
    'the image cannot be read'
    """
    return None if error is None else str(error).partition(" (")[0]
