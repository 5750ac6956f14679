"""MIMIC-CXR-JPG as published on PhysioNet: tables of labels and splits beside `files/`.

Johnson et al. 2019, "MIMIC-CXR-JPG, a large publicly available database of labeled chest
radiographs", arXiv:1901.07042.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from medtl.data.sources.chexpert import FINDINGS
from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.given_columns import labels_of_columns
from medtl.data.sources.published_files import home_of, recognised, table_at
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.errors import MedtlError
from medtl.settings.data import Reading

NAME = "MIMIC-CXR-JPG"
LABELS = "mimic-cxr-2.0.0-chexpert.csv"
SPLIT = "mimic-cxr-2.0.0-split.csv"
METADATA = "mimic-cxr-2.0.0-metadata.csv"
STUDY = ["subject_id", "study_id"]
SPLITS = {"train": "train", "validate": "valid", "test": "test"}


def recognises(place: Path) -> bool:
    """Returns whether a place is, or holds, the CheXpert labels of MIMIC-CXR."""
    table = table_at(place, LABELS)
    return table is not None and set(STUDY) <= set(header(table))


def read(place: Path, reading: Reading) -> Rows:
    """Reads the images of the split table with the labels of their studies.

    Without that table the images are those in the folders of the studies, and splits are drawn.
    The view is read from the table of metadata where it lies there.

    Raises:
        MedtlError: no image is there.
    """
    root = home_of(place)
    labels, splits = table_at(root, LABELS) or place, table_at(root, SPLIT)
    of_studies, notes = read_text(labels)
    findings = [name for name in FINDINGS if name in of_studies]
    images, of_images = read_text(splits) if splits else _in_folders(root, of_studies)
    if images.empty:
        raise MedtlError(f"{labels}: no image is in {root / 'files'}: unpack the images there")
    label, of_labels, _ = labels_of_columns(labels, of_studies, findings, reading.uncertain)
    studies = of_studies[STUDY].assign(label=label)
    frame = images.merge(studies, on=STUDY, how="inner")
    tables = (labels, splits) if splits else (labels,)
    said = [recognised(NAME, *tables), *notes, *of_images, *of_labels]
    if len(frame) < len(images):
        said.append(f"{len(images) - len(frame)} images of studies without labels are left out")
    if metadata := table_at(root, METADATA):
        views, _ = read_text(metadata)
        views = views[["dicom_id", "ViewPosition"]].rename(columns={"ViewPosition": "view"})
        frame = frame.merge(views, on="dicom_id", how="left").fillna({"view": ""})
    subject = frame["subject_id"]
    # as published, below a folder of the first two digits of the subject
    path = (
        "files/p" + subject.str[:2] + "/p" + subject + "/s" + frame["study_id"]
        + "/" + frame["dicom_id"] + ".jpg"
    )  # fmt: skip
    frame = frame.drop(columns="dicom_id").rename(columns={"subject_id": "patient"})
    split = frame["split"].map(SPLITS).fillna(frame["split"])
    frame = frame.assign(path=path, split=split)
    return checked_rows(tables[-1], frame, reading, tuple(said), True, root)


def _in_folders(root: Path, studies: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Lists the images in the folders of studies."""
    rows = [
        (image.stem, study, subject, "")
        for subject, study in studies[STUDY].to_numpy().tolist()
        for image in sorted((root / f"files/p{subject[:2]}/p{subject}/s{study}").glob("*.jpg"))
    ]
    frame = pd.DataFrame(rows, columns=["dicom_id", "study_id", "subject_id", "split"])
    return frame, (f"no {SPLIT}.gz beside the labels: splits are drawn by patient",)


SOURCE = Source(NAME, LAYOUT, recognises, read, tables=("mimic-cxr-2.0.0-chexpert",))
