"""Cache between runs: folders by key, written atomically."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from medtl.errors import MedtlError

ABANDONED = 24 * 3600  # seconds without a write after which an unfinished folder is removed
CHECKSUMS = "checksums.json"
_UNFINISHED = ".unfinished-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # error numbers of a full disk


class CannotKeepError(MedtlError):
    """The disk of the cache is full, or its folder cannot be written."""


def cache_root() -> Path:
    """Returns the cache folder: `MEDTL_CACHE`, else `medtl` in the user's cache folder."""
    named = os.environ.get("MEDTL_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "medtl"


def content_key(*parts: object) -> str:
    """Returns a key of 24 hex digits; equal parts (as JSON) give equal keys, in every process."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """Hashes values, shapes and types of arrays, in order, to 16 hex digits."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr((array.shape, array.dtype.str)).encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def kept_folder(kind: str, key: str) -> Path:
    """Returns the folder of the entry of this kind and key, whether it exists or not."""
    return cache_root() / kind / key


def get_or_create(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`, filled by `make` if it is missing or its checksums do not match.

    Reads every byte, which takes a second for some gigabytes.

    Raises:
        CannotKeepError: the disk is full, or the folder cannot be written.
    """
    if folder.is_dir() and not _is_sound(folder):
        shutil.rmtree(folder, ignore_errors=True)
    if not folder.is_dir():
        with atomic_directory(folder) as unfinished:
            make(unfinished)
            (unfinished / CHECKSUMS).write_text(json.dumps(_checksums(unfinished)))
    return folder


def checksum(file: Path) -> int:
    """Returns the CRC-32 of a file."""
    value = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def is_full(error: OSError) -> bool:
    """Returns whether an error means a full disk."""
    return error.errno in _FULL


def is_abandoned(folder: Path, after: float) -> bool:
    """Returns whether nothing has been written in a folder for `after` seconds, or it is gone.

    Times in the future count by their distance: the clock may have been set back.
    """
    now, away = time.time(), []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in (folder, *folder.iterdir()):
            with suppress(FileNotFoundError):
                away.append(abs(now - path.stat().st_mtime))
    return not away or min(away) > after


@contextmanager
def unfinished(place: Path) -> Iterator[Path]:
    """Yields an empty folder in `place`, removed after the block; creates `place` if missing.

    Folders left behind by killed processes are removed after a day.
    """
    folder = _begun(place)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_directory(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`, and renames it to `folder` when the block succeeds.

    If the block fails, nothing is left behind; folders left behind by killed processes are removed
    after a day. If another process was faster, its folder stays and this one is dropped: equal keys
    mean equal contents.

    Raises:
        CannotKeepError: the disk is full, or the folder cannot be written.
    """
    try:
        begun = _begun(folder.parent)
    except OSError as error:
        raise _cannot_keep(folder.parent, error) from error
    try:
        yield begun
        try:
            begun.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        if not is_full(error):
            raise
        raise _cannot_keep(folder.parent, error) from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


@contextmanager
def nameless_file() -> Iterator[IO[bytes]]:
    """Yields an unnamed file in the cache folder, deleted when it is closed.

    Raises:
        CannotKeepError: the disk is full, or the folder cannot be written.
    """
    root = cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=root)  # noqa: SIM115, its closing may fail too
    except OSError as error:
        raise _cannot_keep(root, error) from error
    try:
        yield file
    except OSError as error:
        if not is_full(error):
            raise
        raise _cannot_keep(root, error) from error
    finally:
        with suppress(OSError):  # buffered data that did not fit fails again on closing
            file.close()


def _begun(place: Path) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(place)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place))


def _cannot_keep(place: Path, error: OSError) -> CannotKeepError:
    room = "free some disk, or " if is_full(error) else ""
    return CannotKeepError(
        f"cannot write to {place} ({error.strerror or error}); "
        f"{room}set MEDTL_CACHE to a folder that can be written"
    )


def _is_sound(folder: Path) -> bool:
    try:
        return json.loads((folder / CHECKSUMS).read_text()) == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS]
    return {str(path.relative_to(folder)): checksum(path) for path in files}


def _clear_abandoned(place: Path) -> None:
    for folder in place.glob(f"{_UNFINISHED}*"):
        if is_abandoned(folder, ABANDONED):
            shutil.rmtree(folder, ignore_errors=True)
