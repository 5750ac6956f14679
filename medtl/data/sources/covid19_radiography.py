"""COVID-19 Radiography Database as published: `images` and `masks` in folders of classes.

Chowdhury et al. 2020, "Can AI Help in Screening Viral and COVID-19 Pneumonia?", IEEE Access
8:132665; Rahman et al. 2021, Computers in Biology and Medicine 132:104319.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from medtl.data.sources.image_folder import read_folder
from medtl.data.sources.published_files import recognised
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.settings.data import Reading

NAME = "COVID-19 Radiography"
FOLDER = "COVID-19_Radiography_Dataset"
CLASSES = ("COVID", "Viral Pneumonia")


def recognises(place: Path) -> bool:
    """Returns whether a folder, or the one of the archive in it, has the classes with images."""
    return _classes(place) is not None


def read(place: Path, reading: Reading) -> Rows:
    """Reads the classes; masks are left out, and patients are not published."""
    rows = read_folder(_classes(place) or place, reading)
    return dataclasses.replace(rows, notes=(recognised(NAME), *rows.notes))


def _classes(place: Path) -> Path | None:
    folders = (place, place / FOLDER)
    found = (each for each in folders if all((each / name / "images").is_dir() for name in CLASSES))
    return next(found, None)


SOURCE = Source(NAME, LAYOUT, recognises, read)
