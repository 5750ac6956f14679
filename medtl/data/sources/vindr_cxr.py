"""VinDr-CXR as published on PhysioNet and Kaggle: labels of three readers an image.

Nguyen et al. 2022, "VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations",
Scientific Data 9:429.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.given_columns import labels_of_columns
from medtl.data.sources.published_files import home_of, recognised, table_at, with_images
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.label_syntax import BETWEEN
from medtl.settings.data import MAJORITY, Reading

NAME = "VinDr-CXR"
IMAGE, READER = "image_id", "rad_id"
TABLES = {"image_labels_train.csv": "train", "image_labels_test.csv": "test"}
BOXES, FINDING = "train.csv", "class_name"
"""Table of the Kaggle competition, a row a box or an image without one, and its column."""


def recognises(place: Path) -> bool:
    """Returns whether a place is the folder, its `annotations`, or a table of image labels."""
    table = _table(place, *TABLES)
    if table is not None:
        return header(table)[:1] == (IMAGE,)
    return _boxes(place) is not None


def read(place: Path, reading: Reading) -> Rows:
    """Reads the findings of both tables; readers decide by majority unless `readers` is given.

    The test set, labelled by the consensus of five radiologists, is the test split. Patients are
    not published.
    """
    if not reading.readers:
        reading = dataclasses.replace(reading, readers=MAJORITY)
    if boxes := _boxes(place):
        return _of_boxes(boxes, reading)
    given = place if place.is_file() else None
    root = _root(place)
    tables = [table for name in TABLES if (table := _table(given or place, name))]
    frames, notes = list[pd.DataFrame](), list[str]()
    for table in tables:
        frame, said = read_text(table)
        split = TABLES[table.name.casefold().removesuffix(".gz")]
        findings = [name for name in frame if name not in (IMAGE, READER)]
        labels, of_labels, _ = labels_of_columns(table, frame, findings, reading.uncertain)
        rows = pd.DataFrame({"path": frame[IMAGE], "label": labels})
        rows = with_images(root, rows, (split, "."), table)
        frames.append(rows.assign(split="test" if split == "test" else ""))
        notes += [*said, *(f"{table.name}: {line}" for line in of_labels)]
    frame = pd.concat(frames, ignore_index=True)
    said = (recognised(NAME, *tables), *notes)
    return checked_rows(tables[0], frame, reading, said, True, root)


def _of_boxes(table: Path, reading: Reading) -> Rows:
    """Reads the findings of each reader from the boxes that the reader drew."""
    frame, notes = read_text(table)
    votes = frame.groupby([IMAGE, READER], sort=False)[FINDING]
    labels = votes.agg(lambda names: BETWEEN.join(dict.fromkeys(names))).reset_index()
    rows = labels.rename(columns={IMAGE: "path", FINDING: "label"}).drop(columns=READER)
    rows = with_images(table.parent, rows.assign(patient="", split=""), ("train", "."), table)
    said = (recognised(NAME, table), f"{len(frame)} rows, of boxes, are {len(rows)} readings")
    return checked_rows(table, rows, reading, (*said, *notes), True, table.parent)


def _boxes(place: Path) -> Path | None:
    table = table_at(place, BOXES)
    return table if table and {IMAGE, READER, FINDING} <= set(header(table)) else None


def _table(place: Path, *names: str) -> Path | None:
    return table_at(place, *names) or table_at(place / "annotations", *names)


def _root(place: Path) -> Path:
    folder = home_of(place)
    return folder.parent if folder.name == "annotations" else folder


SOURCE = Source(NAME, LAYOUT, recognises, read)
