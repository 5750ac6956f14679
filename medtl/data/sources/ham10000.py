"""HAM10000 as published: `HAM10000_metadata.csv` beside folders of dermatoscopic images.

Tschandl, Rosendahl & Kittler 2018, "The HAM10000 dataset", Scientific Data 5:180161.
"""

from __future__ import annotations

from pathlib import Path

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.published_files import home_of, recognised, table_at, with_images
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.settings.data import Reading

NAME = "HAM10000"
TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
FOLDERS = ("HAM10000_images*", "ham10000_images*", "images", ".")
LESION, IMAGE, DIAGNOSIS = "lesion_id", "image_id", "dx"


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, the metadata of HAM10000."""
    table = table_at(place, *TABLES)
    return table is not None and {LESION, IMAGE, DIAGNOSIS} <= set(header(table))


def read(place: Path, reading: Reading) -> Rows:
    """Reads the diagnoses; images of one lesion count as one patient."""
    table = table_at(place, *TABLES) or place
    root = home_of(place)
    frame, notes = read_text(table)
    frame = frame.rename(columns={IMAGE: "path", DIAGNOSIS: "label", LESION: "patient"})
    frame = with_images(root, frame, FOLDERS, table)
    said = (recognised(NAME, table), "images of one lesion count as one patient")
    return checked_rows(table, frame, reading, (*said, *notes), False, root)


SOURCE = Source(NAME, LAYOUT, recognises, read, tables=("ham10000_metadata",))
