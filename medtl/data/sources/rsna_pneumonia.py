"""RSNA pneumonia challenge as published: tables of stage 2 beside `stage_2_train_images/`.

Shih et al. 2019, "Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert
Annotations of Possible Pneumonia", Radiology: Artificial Intelligence 1(1):e180041.
"""

from __future__ import annotations

from pathlib import Path

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.published_files import home_of, recognised, table_at, with_images
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.settings.data import Reading

NAME = "RSNA pneumonia"
CLASSES, BOXES = "stage_2_detailed_class_info.csv", "stage_2_train_labels.csv"
IMAGE = "patientId"
FOLDERS = ("stage_2_train_images", ".")
TARGETS = {"0": "No Lung Opacity", "1": "Lung Opacity"}


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, one of the two tables of stage 2."""
    table = table_at(place, CLASSES, BOXES)
    return table is not None and IMAGE in header(table)


def read(place: Path, reading: Reading) -> Rows:
    """Reads the three classes, or without their table the target; a row a box becomes one image."""
    table = table_at(place, CLASSES, BOXES) or place
    root = home_of(place)
    frame, notes = read_text(table)
    column = "class" if "class" in frame else "Target"
    rows = frame[[IMAGE, column]].rename(columns={IMAGE: "path", column: "label"})
    if column == "Target":
        rows["label"] = rows["label"].map(TARGETS).fillna(rows["label"])
    several = len(rows)
    rows = rows.drop_duplicates().reset_index(drop=True)
    rows["patient"] = rows["path"]
    rows = with_images(root, rows, FOLDERS, table)
    said = [recognised(NAME, table)]
    if several > len(rows):
        said.append(f"{several} rows, of boxes, are {len(rows)} images")
    return checked_rows(table, rows, reading, (*said, *notes), False, root)


SOURCE = Source(NAME, LAYOUT, recognises, read)
