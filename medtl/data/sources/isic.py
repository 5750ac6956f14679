"""ISIC challenges of 2017 to 2020 as published: tables of ground truth beside folders of images.

Codella et al. 2018, "Skin lesion analysis toward melanoma detection", ISBI (2017), and
arXiv:1902.03368 (2018); Combalia et al. 2019, arXiv:1908.02288 (2019); Rotemberg et al. 2021, "A
patient-centric dataset of images and metadata for identifying melanomas using clinical context",
Scientific Data 8:34 (2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.given_columns import PRESENT, VALUES
from medtl.data.sources.published_files import home_of, recognised, table_at, with_images
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.settings.data import Reading

SPLITS = {"Training": "train", "Validation": "valid", "Test": "test"}
IMAGES = ("image_id", "image", "image_name")
CLASSES = (
    "melanoma", "seborrheic_keratosis",
    "MEL", "NV", "BCC", "AK", "AKIEC", "BKL", "DF", "VASC", "SCC", "UNK",
)  # fmt: skip
NEITHER = "nevus"
"""Class of 2017 without a column: neither melanoma nor seborrheic keratosis."""

LESIONS = ("ISIC2018_Task3_Training_LesionGroupings.csv", "ISIC_2019_Training_Metadata.csv")


@dataclass(frozen=True)
class Part:
    """One table of ground truth: its file name, its split, and the folders of its images."""

    table: str
    split: str
    folders: tuple[str, ...]


def _parts() -> Iterator[Part]:
    for word, split in SPLITS.items():
        old = "Test_v2" if word == "Test" else word
        yield Part(f"ISIC-2017_{old}_Part3_GroundTruth.csv", split, (f"ISIC-2017_{old}_Data",))
        yield Part(
            f"ISIC2018_Task3_{word}_GroundTruth.csv", split, (f"ISIC2018_Task3_{word}_Input",)
        )
        yield Part(f"ISIC_2019_{word}_GroundTruth.csv", split, (f"ISIC_2019_{word}_Input",))
    folders = ("train", "ISIC_2020_Training_JPEG", "ISIC_2020_Training_JPEG/train")
    for version in ("_v2", ""):
        yield Part(f"ISIC_2020_Training_GroundTruth{version}.csv", "train", folders)


PARTS = tuple(_parts())


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, a table of ground truth of ISIC."""
    return any(True for _ in _found(place))


def read(place: Path, reading: Reading) -> Rows:
    """Reads the tables of ground truth of one year, which give the splits.

    In 2020 the label is `benign_malignant` and the patient is published; in 2018 and 2019 images
    of one lesion count as one patient where the table of lesions is there.
    """
    root = home_of(place)
    root = root.parent if root.name.endswith("_GroundTruth") else root
    found = list(_found(place))
    first = found[0][0].table[:9]  # ISIC-2017, ISIC2018_, ISIC_2019, ISIC_2020
    found = [(part, table) for part, table in found if part.table[:9] == first]
    if first == "ISIC_2020":
        found = found[:1]
    given = {part.split for part, _ in found}
    frames, notes = list[pd.DataFrame](), list[str]()
    for part, table in found:
        frame, said = read_text(table)
        notes += said
        (image,) = (name for name in frame if name in IMAGES)
        labels, patients = _labels(frame), frame.get("patient_id", "")
        rows = pd.DataFrame({"path": frame[image], "label": labels, "patient": patients})
        rows = rows.assign(name=frame[image], split=part.split if len(given) > 1 else "")
        frames.append(with_images(root, rows, (*part.folders, "."), table))
    frame = pd.concat(frames, ignore_index=True)
    frame, of_classes = _learnable(frame)
    frame, of_lesions = _with_lesions(root, frame)
    said = (recognised(f"ISIC {first.strip('_')[-4:]}", *(table for _, table in found)),)
    rows = frame.drop(columns="name")
    return checked_rows(
        found[0][1], rows, reading, (*said, *notes, *of_classes, *of_lesions), False, root
    )


def _found(place: Path) -> Iterator[tuple[Part, Path]]:
    """Yields the parts at a place; 2018 has each table in a folder of its own name."""
    for part in PARTS:
        beside = place / Path(part.table).stem
        table = table_at(place, part.table) or table_at(beside, part.table)
        if table is not None and set(header(table)) & {*CLASSES, "benign_malignant"}:
            yield part, table


def _labels(frame: pd.DataFrame) -> pd.Series:
    if "benign_malignant" in frame:
        return frame["benign_malignant"]
    columns = [name for name in frame if name in CLASSES]
    flags = pd.DataFrame(
        {name: frame[name].str.strip().str.casefold().map(VALUES) == PRESENT for name in columns}
    )
    return flags.idxmax(axis=1).where(flags.any(axis=1), NEITHER)


def _learnable(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Leaves out the images of classes without training images, as UNK of 2019."""
    training = frame["label"][frame["split"] == "train"]
    if training.empty:
        return frame, ()
    known = frame["label"].isin(training)
    if known.all():
        return frame, ()
    names = ", ".join(sorted(frame["label"][~known].unique()))
    line = f"{int((~known).sum())} images of {names}, without training images, are left out"
    return frame[known].reset_index(drop=True), (line,)


def _with_lesions(root: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Fills unknown patients with the lesion, where a published table names it."""
    for name in LESIONS:
        table = table_at(root, name)
        if table is None:
            continue
        lesions, _ = read_text(table)
        known = lesions.set_index("image")["lesion_id"].str.strip()
        lesion = frame["name"].map(known).fillna("")
        if (lesion != "").any():
            line = f"images of one lesion count as one patient ({table.name})"
            return frame.assign(patient=frame["patient"].where(frame["patient"] != "", lesion)), (
                line,
            )
    return frame, ()


SOURCE = Source("ISIC", LAYOUT, recognises, read)
