"""ChestX-ray14 as the NIH publishes it: its CSV, its folders of images, its two lists.

The CSV is `Data_Entry_2017.csv` or `Data_Entry_2017_v2020.csv` of Wang et al. 2017, "ChestX-ray8:
Hospital-scale Chest X-ray Database and Benchmarks", CVPR.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.published_files import recognised, table_at
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.errors import MedtlError
from medtl.settings.data import Reading

IMAGE, FINDINGS = "Image Index", "Finding Labels"

COLUMNS = {
    FINDINGS: "label",
    "Patient ID": "patient",
    "Patient Age": "age",
    "Patient Gender": "gender",
    "Patient Sex": "gender",
    "View Position": "view",
    "Follow-up #": "follow_up",
}
"""The published columns that are kept, and what they are called here; each edition has one of the
two for the gender."""

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = TRAIN_LIST, TEST_LIST = "train_val_list.txt", "test_list.txt"
"""The published lists of images; valid is drawn out of the first one."""


def is_chestxray14(place: Path) -> bool:
    """Returns whether a place is, or holds, a CSV file with the columns of ChestX-ray14."""
    table = _table(place)
    return table is not None and {IMAGE, FINDINGS} <= set(header(table))


def read(place: Path, reading: Reading) -> Rows:
    """Reads the rows of the CSV with their images and splits (see `in_plain_columns`)."""
    file = _table(place) or place
    frame, notes = read_text(file)
    said = (recognised("ChestX-ray14", file), *notes)
    return checked_rows(file, in_plain_columns(file, frame), reading, said)


def _table(place: Path) -> Path | None:
    return place if place.is_file() else table_at(place, *TABLES)


def in_plain_columns(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Returns `path`, `label` (findings joined by |), `patient`, `split` and other columns.

    Images are found by their names: beside the CSV, in `images/`, or in `images_*/images/` as the
    archives are unpacked. The split is that of the two lists where they lie beside the CSV.

    Args:
        file: the CSV.
        frame: its rows, as text, with the columns as published.

    Raises:
        MedtlError: images are not there, or the lists do not give each image one split.
    """
    columns = {name: plain for name, plain in COLUMNS.items() if name in frame}
    plain = frame[list(columns)].rename(columns=columns)
    names = frame[IMAGE].str.strip()
    plain.insert(0, "path", names.map(_images(file.parent)))
    gone = names[plain["path"].isna()]
    if len(gone):
        raise MedtlError(
            f"{file}: {len(gone)} of {len(names)} images are not there ({_some(gone)}); unpack all "
            f"archives, so that they lie in {file.parent}/images or in images_*/images there, or "
            "take their rows out of the CSV"
        )
    return plain.assign(split=_splits(file, names))


def _images(folder: Path) -> dict[str, str]:
    """Maps the names of possible images to their paths below the folder."""
    places = [*sorted(folder.glob("images_*/images")), folder / "images", folder]
    return {
        found.name: found.relative_to(folder).as_posix()
        for place in places
        if place.is_dir()
        for found in place.iterdir()
    }


def _splits(file: Path, names: pd.Series) -> pd.Series:
    """Returns `test` for the images of the test list, '' for others and without lists."""
    given = [name for name in LISTS if (file.parent / name).is_file()]
    if not given:
        return pd.Series("", index=names.index)
    if len(given) == 1:
        (other,) = set(LISTS) - set(given)
        raise MedtlError(
            f"{file} has {given[0]} beside it, and not {other}: put both there, or neither to have "
            "the test split drawn by patient"
        )
    train, test = (names.isin((file.parent / name).read_text().split()) for name in LISTS)
    times = train.astype(int) + test
    for count, where in ((0, "neither"), (2, "both")):
        wrong = names[times == count]
        if len(wrong):
            raise MedtlError(
                f"{file}: {where} of {' and '.join(LISTS)} {'have' if count else 'has'} "
                f"{len(wrong)} of the images ({_some(wrong)}); use the lists as published, or take "
                "both away to have the test split drawn by patient"
            )
    return test.map({True: "test", False: ""})


def _some(names: pd.Series) -> str:
    return ", ".join(name or "(empty)" for name in names[:3]) + (", ..." if len(names) > 3 else "")


SOURCE = Source(
    "ChestX-ray14",
    LAYOUT,
    is_chestxray14,
    read,
    tables=("data_entry_2017", "data_entry_2017_v2020"),
)
