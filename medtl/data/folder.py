"""Images sorted into folders: a folder a class, or splits over classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from medtl.data import volumes
from medtl.data.labels import SPLIT_NAMES
from medtl.errors import MedtlError

PICTURES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"))
SUFFIXES = PICTURES | {".dcm", ".dicom"}


def read_folder(root: Path) -> pd.DataFrame:
    """The rows of a folder of `CLASS/...`, or of `train/ valid/ test/` over classes.

    The path below `root`, the label, no patient, and the split, where folders tell it.

    Raises:
        MedtlError: no images, images beside the class folders, or splits mixed with classes.
    """
    folders = _folders(root)
    splits = [folder for folder in folders if folder.name.casefold() in SPLIT_NAMES]
    if splits and len(splits) < len(folders):
        other = next(folder.name for folder in folders if folder not in splits)
        raise MedtlError(
            f"{root} holds split folders ({splits[0].name}) beside others ({other}): "
            "put every class into a split folder, or none"
        )
    if splits:
        rows = [
            row
            for folder in splits
            for row in _classes(root, folder, SPLIT_NAMES[folder.name.casefold()])
        ]
    else:
        rows = _classes(root, root, "")
    return pd.DataFrame(rows, columns=["path", "label", "patient", "split"])


def images_below(folder: Path) -> Iterator[Path]:
    """The image files (and volumes) of a folder at any depth, in the order of their names."""
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        yield from (Path(place) / name for name in sorted(names) if _is_image(Path(place) / name))


def _classes(root: Path, folder: Path, split: str) -> list[tuple[str, str, str, str]]:
    rows = [
        (file.relative_to(root).as_posix(), kind.name, "", split)
        for kind in _folders(folder)
        for file in images_below(kind)
    ]
    if not rows:
        beside = any(_is_image(file) for file in folder.iterdir())
        found = "images, but none in a folder that names their class" if beside else "no images"
        raise MedtlError(f"{folder} holds {found}: put them into one folder a class")
    return rows


def _folders(folder: Path) -> list[Path]:
    """Folders in order; hidden ones and what archives leave behind (__MACOSX) do not count."""
    return sorted(
        inside
        for inside in folder.iterdir()
        if inside.is_dir() and not inside.name.startswith((".", "__"))
    )


def _is_image(file: Path) -> bool:
    """By its suffix; without one, DICOM files are known by their first bytes."""
    if file.name.startswith(".") or not file.is_file():
        return False
    # A volume is listed too, so that it is refused by its name, or skipped and counted.
    if file.suffix.casefold() in SUFFIXES or file.name.casefold().endswith(volumes.SUFFIXES):
        return True
    # Scanners name DICOM files by numbers with dots, so the "suffix" of one may be digits.
    if file.suffix and not file.suffix[1:].isdigit():
        return False
    with open(file, "rb") as opened:
        return opened.read(132)[128:] == b"DICM"
