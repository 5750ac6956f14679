"""Paths of images as tables write them: by a pattern, with backslashes, without a suffix."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pandas as pd

from medtl.data.image_files import SUFFIXES, suffix, with_examples


def resolved_paths(
    root: Path, paths: pd.Series, pattern: str = ""
) -> tuple[pd.Series, tuple[str, ...]]:
    """Finds the files of paths; returns the paths and notes.

    Without a file at a path, backslashes are taken for slashes, and a missing suffix is that of the
    only image of this name in its folder. Paths without a file after that stay as they are.

    Args:
        root: folder that paths start at.
        paths: text.
        pattern: path with {} for the value; '' for none.
    """
    if pattern:
        paths = paths.map(lambda value: pattern.replace("{}", value) if value else "")
    named = paths.unique()
    gone = [path for path in named if path and not _is_file(root / path)]
    slashes = {path: path.replace("\\", "/") for path in gone if "\\" in path and "\0" not in path}
    folders: dict[Path, dict[str, list[str]]] = {}
    found: dict[str, str] = {}
    for path in gone:
        plain = slashes.get(path, path)
        if path in slashes and _is_file(root / plain):
            found[path] = plain
            continue
        folder, _, name = plain.rpartition("/")
        place = root / folder
        if place not in folders:
            folders[place] = _by_stem(place)
        names = folders[place].get(name, [])
        if len(names) == 1:
            found[path] = f"{folder}/{names[0]}" if folder else names[0]
    notes = []
    turned = [path for path in found if path in slashes]
    completed = [path for path, full in found.items() if full != slashes.get(path, path)]
    if turned:
        notes.append(with_examples("paths with backslashes, read as slashes", turned))
    if completed:
        notes.append(with_examples("paths without a suffix, found by their names", completed))
    return (paths.replace(found) if found else paths), tuple(notes)


def _is_file(place: Path) -> bool:
    return os.path.isfile(place)  # unlike Path.is_file also of impossible names


def _by_stem(folder: Path) -> dict[str, list[str]]:
    """Maps the names of images in a folder, without their suffix, to their names."""
    stems: dict[str, list[str]] = defaultdict(list)
    if os.path.isdir(folder):
        for entry in os.scandir(folder):
            ending = suffix(entry.name)
            if ending in SUFFIXES:
                stems[entry.name[: -len(ending)]].append(entry.name)
    return stems
