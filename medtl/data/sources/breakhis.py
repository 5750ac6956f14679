"""BreakHis as published: histology of breast tumours, the slide and magnification in the names.

Spanhol et al. 2016, "A Dataset for Breast Cancer Histopathological Image Classification", IEEE
Transactions on Biomedical Engineering 63(7):1455.
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

NAME = "BreakHis"
BELOW = ("", "histology_slides/breast", "BreaKHis_v1/histology_slides/breast", "breast")
LABELS = {"B": "benign", "M": "malignant"}
_IMAGE = re.compile(r"SOB_([BM])_([A-Z]+)-(\d+-\d+\w*)-(40|100|200|400)-\d+\.png")


def recognises(place: Path) -> bool:
    """Returns whether a folder holds `benign/SOB` and `malignant/SOB`."""
    return _breast(place) is not None


def read(place: Path, reading: Reading) -> Rows:
    """Reads benign and malignant images of all magnifications; the slide is the patient.

    The columns `tumour` (type, as DC) and `magnification` are kept for subgroups.
    """
    root = _breast(place) or place
    found = find_images(root)
    rows, others = [], []
    for path in found.images:
        match = _IMAGE.fullmatch(path.rpartition("/")[2])
        if match is None:
            others.append(path)
            continue
        kind, tumour, slide, magnification = match.groups()
        rows.append((path, LABELS[kind], slide, "", tumour, f"{magnification}X"))
    columns = ["path", "label", "patient", "split", "tumour", "magnification"]
    frame = pd.DataFrame(rows, columns=columns)
    said = [recognised(NAME), "images of one slide count as one patient, at all magnifications"]
    if others:
        said.append(with_examples("images of other names left out", others))
    return checked_rows(root, frame, reading, (*said, *found.notes()), False, root)


def _breast(place: Path) -> Path | None:
    for below in BELOW:
        folder = place / below
        if (folder / "benign" / "SOB").is_dir() and (folder / "malignant" / "SOB").is_dir():
            return folder
    return None


SOURCE = Source(NAME, LAYOUT, recognises, read)
