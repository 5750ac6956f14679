"""Chest X-rays of Kermany et al. as published: children with pneumonia, the person in the names.

Kermany et al. 2018, "Identifying Medical Diagnoses and Treatable Diseases by Image-Based Deep
Learning", Cell 172(5):1122.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from medtl.data.image_files import find_images, with_examples
from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.published_files import recognised
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.settings.data import Reading

NAME = "Kermany's chest X-rays"
CLASSES = ("NORMAL", "PNEUMONIA")
_PERSON = re.compile(r"person\d+(?=_(bacteria|virus)_\d+)|(NORMAL2-)?IM-\d+(?=-\d+)")
_PNEUMONIA = re.compile(r"person\d+_(bacteria|virus)_\d+\.jpe?g", re.IGNORECASE)


def recognises(place: Path) -> bool:
    """Returns whether a folder has the classes in `train` and `test`, and names of persons."""
    below = [place / split / name for split in ("train", "test") for name in CLASSES]
    if not all(folder.is_dir() for folder in below):
        return False
    return any(_PNEUMONIA.fullmatch(file.name) for file in below[1].iterdir())


def read(place: Path, reading: Reading) -> Rows:
    """Reads the classes with the person of each image and the published test split.

    The 16 images of `val` are too few to validate on: valid is drawn by patient out of them and
    `train`. Both of these and `test` count persons from 1, so equal numbers are other patients.
    """
    found = find_images(place)
    rows, others, unsplit = [], [], 0
    for path in found.images:
        split, *middle, name = path.split("/")
        if split not in ("train", "val", "test") or len(middle) != 1 or middle[0] not in CLASSES:
            others.append(path)
            continue
        person = _PERSON.match(name)
        group = "test" if split == "test" else "train"
        unsplit += split == "val"
        patient = f"{group}-{person.group()}" if person else ""
        rows.append((path, middle[0], patient, "test" if split == "test" else ""))
    frame = pd.DataFrame(rows, columns=["path", "label", "patient", "split"])
    said = [recognised(NAME), "patients are read from the file names; valid is drawn by patient"]
    if unsplit:
        said.append(f"the {unsplit} images of val are too few to validate on and join train")
    if others:
        said.append(with_examples("images beside the class folders left out", others))
    return checked_rows(place, frame, reading, (*said, *found.notes()), False, place)


SOURCE = Source(NAME, LAYOUT, recognises, read)
