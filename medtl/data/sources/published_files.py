"""Tables and images of published layouts: found by name at a folder or beside a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from medtl.data.image_files import SUFFIXES, suffix
from medtl.errors import MedtlError


def table_at(place: Path, *names: str) -> Path | None:
    """Returns the first table of these names: the place itself, or in the folder; None without.

    A compressed table (`.csv.gz`) counts too. The folder is not listed: it may hold all images.
    """
    wanted = [ending for name in names for ending in (name, f"{name}.gz")]
    if place.is_file():
        known = {name.casefold() for name in wanted}
        return place if place.name.casefold() in known else None
    return next((place / name for name in wanted if os.path.isfile(place / name)), None)


def home_of(place: Path) -> Path:
    """Returns the folder of a data set that is given by its folder or by a table in it."""
    return place if place.is_dir() else place.parent


def with_images(
    root: Path, frame: pd.DataFrame, folders: Sequence[str], table: Path
) -> pd.DataFrame:
    """Replaces the name in `path` by the path of the image of that name, with or without suffix.

    Args:
        root: folder of the data set.
        frame: rows with an image name in `path`.
        folders: patterns below `root` of folders with images, the first match counts; folders
            beside the table are searched after them.
        table: for messages.

    Raises:
        MedtlError: images are not there.
    """
    found: dict[str, str] = {}
    for pattern in (*folders, "*"):
        for folder in sorted(root.glob(pattern)) if pattern != "." else [root]:
            if folder.is_dir():
                for path in _images(folder):
                    name = path.name
                    below = path.relative_to(root).as_posix()
                    found.setdefault(name, below)
                    found.setdefault(name[: -len(suffix(name))], below)
    names = frame["path"].str.strip()
    paths = names.map(found)
    gone = names[paths.isna()]
    if len(gone):
        shown = ", ".join(gone[:3]) + (", ..." if len(gone) > 3 else "")
        raise MedtlError(
            f"{table}: {len(gone)} of {len(names)} images are not there ({shown}); unpack them "
            f"into {' or '.join(folders)} in {root}, or give their place by "
            "columns=path:COLUMN and path_pattern=FOLDER/{}"
        )
    return frame.assign(path=paths)


def recognised(name: str, *tables: Path) -> str:
    """Returns the note on a recognised layout."""
    files = f" ({', '.join(table.name for table in tables)})" if tables else ""
    return f"read in the layout of {name}{files}; layout=plain reads it as any other data"


def _images(folder: Path) -> Iterable[Path]:
    return (each for each in folder.iterdir() if suffix(each.name) in SUFFIXES)
