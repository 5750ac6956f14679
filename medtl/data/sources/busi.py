"""BUSI as published: breast ultrasound in folders of classes, each image beside its masks.

Al-Dhabyani et al. 2020, "Dataset of breast ultrasound images", Data in Brief 28:104863.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from medtl.data.sources.image_folder import read_folder
from medtl.data.sources.published_files import recognised
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.settings.data import Reading

NAME = "BUSI"
FOLDER = "Dataset_BUSI_with_GT"
FIRST = ("benign/benign (1)_mask.png", "malignant/malignant (1)_mask.png")


def recognises(place: Path) -> bool:
    """Returns whether a folder, or the one of the archive in it, has the masks of BUSI."""
    return _classes(place) is not None


def read(place: Path, reading: Reading) -> Rows:
    """Reads the classes; masks are left out, and patients are not published."""
    rows = read_folder(_classes(place) or place, reading)
    return dataclasses.replace(rows, notes=(recognised(NAME), *rows.notes))


def _classes(place: Path) -> Path | None:
    folders = (place, place / FOLDER)
    return next((each for each in folders if all((each / name).is_file() for name in FIRST)), None)


SOURCE = Source(NAME, LAYOUT, recognises, read)
