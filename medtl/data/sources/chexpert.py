"""CheXpert as published: `train.csv` and `valid.csv`, one column a finding.

Irvin et al. 2019, "CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert
Comparison", AAAI.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.given_columns import labels_of_columns
from medtl.data.sources.published_files import home_of, recognised, table_at
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.settings.data import Reading

NAME = "CheXpert"
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
NAMED = ("Path", "Frontal/Lateral", "AP/PA")
PATH, SPLITS = "Path", {"train.csv": "train", "valid.csv": "valid", "test.csv": "test"}


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, a table with the columns of CheXpert."""
    table = table_at(place, *SPLITS)
    return table is not None and _is_published(table)


def read(place: Path, reading: Reading) -> Rows:
    """Reads all tables in a folder, or the one that is given, with their splits."""
    root = home_of(place)
    tables = [table for name in SPLITS if (table := table_at(place, name))]
    tables = [table for table in tables if _is_published(table)]
    frames, notes = list[pd.DataFrame](), list[str]()
    for table in tables:
        frame, said = read_text(table)
        name = table.name.casefold().removesuffix(".gz")
        split = SPLITS[name] if len(tables) > 1 or name != "train.csv" else ""
        frames.append(frame.assign(split=split))
        notes += said
    frame = pd.concat(frames, ignore_index=True)
    findings = [name for name in FINDINGS if name in frame]
    labels, of_labels, _ = labels_of_columns(tables[0], frame, findings, reading.uncertain)
    paths = frame[PATH].map(lambda path: _below(root, path))
    patients = paths.str.extract(r"(?:^|/)(patient\d+)/", expand=False).fillna("")
    frame = frame.drop(columns=[PATH, *findings]).assign(path=paths, label=labels, patient=patients)
    said = (recognised(NAME, *tables), *notes, *of_labels)
    return checked_rows(tables[0], frame, reading, said, True, root)


def _is_published(table: Path) -> bool:
    names = set(header(table))
    return set(NAMED) <= names and len(names & set(FINDINGS)) > 1


def _below(root: Path, path: str) -> str:
    """Returns a path from `root`, without the name of the archive that the table begins it with."""
    first, _, rest = path.partition("/")
    return rest if first.startswith("CheXpert") and not (root / first).is_dir() else path


SOURCE = Source(NAME, LAYOUT, recognises, read)
