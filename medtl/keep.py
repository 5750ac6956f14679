"""Where computed things are kept between runs: folders with keys, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medtl.errors import MedtlError


def cache_root() -> Path:
    """The folder of all that is kept: `MEDTL_CACHE`, else `medtl` in the user's cache folder."""
    named = os.environ.get("MEDTL_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "medtl"


def key_of(*parts: object) -> str:
    """A key of 24 hex digits; equal parts (as JSON) give equal keys, in every process."""
    text = json.dumps(parts, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def kept_folder(kind: str, key: str) -> Path:
    """The folder in which the thing of this kind and key is, or will be, kept."""
    return cache_root() / kind / key


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`, and renames it to `folder` when the block succeeds.

    When the block fails nothing is left behind. When another process was faster, its folder
    stays and ours is dropped: equal keys mean equal contents.

    Raises:
        MedtlError: the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    except OSError as error:
        raise MedtlError(
            f"cannot write to {folder.parent} ({error.strerror}); "
            "set MEDTL_CACHE to a folder that can be written"
        ) from error
    try:
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
