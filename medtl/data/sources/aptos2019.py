"""APTOS 2019 as published: `train.csv` (id_code, diagnosis) beside `train_images/`.

Asia Pacific Tele-Ophthalmology Society 2019, "APTOS 2019 Blindness Detection", Kaggle.
"""

from __future__ import annotations

from pathlib import Path

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.published_files import home_of, recognised, table_at, with_images
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.settings.data import Reading

NAME = "APTOS 2019"
IMAGE, GRADE = "id_code", "diagnosis"
FOLDERS = ("train_images", "train_images/train_images", ".")
GRADES = {"0": "No DR", "1": "Mild", "2": "Moderate", "3": "Severe", "4": "Proliferative DR"}


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, a table of image codes and grades."""
    table = table_at(place, "train.csv")
    return table is not None and {IMAGE, GRADE} <= set(header(table))


def read(place: Path, reading: Reading) -> Rows:
    """Reads the grades by their names; patients are not published."""
    table = table_at(place, "train.csv") or place
    root = home_of(place)
    frame, notes = read_text(table)
    frame = frame.rename(columns={IMAGE: "path", GRADE: "label"})
    grades = frame["label"].str.strip()
    frame = with_images(root, frame.assign(label=grades.map(GRADES).fillna(grades)), FOLDERS, table)
    return checked_rows(table, frame, reading, (recognised(NAME, table), *notes), False, root)


SOURCE = Source(NAME, LAYOUT, recognises, read)
