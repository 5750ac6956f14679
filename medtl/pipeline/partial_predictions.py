"""Answers of an unfinished prediction: a file beside the table, to which chunks are appended.

Each chunk is one line: the key of its files, and its rows as JSON. A killed process leaves at most
one torn line, at the end, which is cut off and computed again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock

from medtl.cache import content_key, is_full, kept_folder
from medtl.errors import MedtlError

SUFFIX = ".partial.jsonl"
FORMAT = 1
SYNCED = 2.0  # seconds between two times that the disk confirms what was written

Row = dict[str, object]


class PartialPredictions:
    """Answered chunks of a prediction, kept in a file.

    Attributes:
        request_id: id of the command that began the prediction.
    """

    def __init__(self, file: Path, about: Mapping[str, object], request_id: str) -> None:
        """Opens the file, or begins it.

        Args:
            file: its path.
            about: what all answers depend on: the model, and whether there are heat maps.
            request_id: of this command, if it begins the prediction.

        Raises:
            MedtlError: the file has answers of another model, or cannot be written.
        """
        self._path = file
        self._places: dict[str, int] = {}  # of the lines by the key of their chunk
        self._file: IO[bytes] = _opened(file)
        header = self._file.readline()
        if header.endswith(b"\n"):
            found = json.loads(header)
            self.request_id = str(found.pop("request_id"))
            _check_same(file, found, about)
            self._read_places()
        else:
            self.request_id = request_id
            self._file.seek(0)
            self._file.truncate()
            self._write(json.dumps({**about, "request_id": request_id}).encode() + b"\n")
        self._synced = time.monotonic()

    def __contains__(self, chunk: str) -> bool:
        return chunk in self._places

    def add(self, chunk: str, rows: Sequence[Row]) -> None:
        """Appends the rows of a chunk.

        Raises:
            MedtlError: the disk is full, or the file cannot be written.
        """
        place = self._file.seek(0, os.SEEK_END)
        self._write(f"{chunk} {json.dumps(rows)}\n".encode())
        self._places[chunk] = place
        if time.monotonic() - self._synced > SYNCED:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def rows(self, chunk: str) -> list[Row]:
        """Returns the rows of a chunk."""
        self._file.seek(self._places[chunk])
        return json.loads(self._file.readline().partition(b" ")[2])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def remove(self) -> None:
        """Closes and removes the file."""
        self.close()
        self._path.unlink()

    def _read_places(self) -> None:
        place = self._file.tell()
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                self._file.seek(place)
                self._file.truncate()
                break
            self._places[line.partition(b" ")[0].decode()] = place
            place += len(line)

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise _not_written(self._path, error) from error


@contextmanager
def partial_predictions(
    table: Path, about: Mapping[str, object], request_id: str
) -> Iterator[PartialPredictions]:
    """Yields the unfinished prediction of a table, locked against other processes.

    Raises:
        MedtlError: another process writes the table; or as `PartialPredictions`.
    """
    folder = kept_folder("predictions", content_key(str(table.resolve())))
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")  # the system frees it when a process is killed
    try:
        lock.acquire(timeout=0)
    except TimeoutError as error:
        raise MedtlError(
            f"another predict writes {table}: wait for its end, or give another output"
        ) from error
    try:
        partial = PartialPredictions(partial_file(table), about, request_id)
        try:
            yield partial
        finally:
            partial.close()
    finally:
        lock.release()


def partial_file(table: Path) -> Path:
    """Returns the file of the unfinished answers of a table."""
    return table.with_name(table.stem + SUFFIX)


def _opened(file: Path) -> IO[bytes]:
    try:
        return file.open("r+b" if file.exists() else "w+b")
    except OSError as error:
        raise _not_written(file, error) from error


def _check_same(file: Path, found: Mapping[str, object], about: Mapping[str, object]) -> None:
    if found == about:
        return
    differ = [name for name in about if found.get(name) != about[name]]
    told = ", ".join(f"{name} {found.get(name)}" for name in differ)
    raise MedtlError(
        f"{file} has unfinished answers of another command ({told}): finish it with the same "
        "model and parameters, remove the file, or give another output"
    )


def _not_written(file: Path, error: OSError) -> MedtlError:
    remedy = "free some disk; the same command goes on" if is_full(error) else "give another output"
    return MedtlError(f"{file} cannot be written ({error.strerror or error}): {remedy}")
