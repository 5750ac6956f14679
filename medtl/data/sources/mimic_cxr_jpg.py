"""MIMIC-CXR-JPG as published on PhysioNet: tables of labels and splits beside `files/`.

Johnson et al. 2019, "MIMIC-CXR-JPG, a large publicly available database of labeled chest
radiographs", arXiv:1901.07042.
"""

from __future__ import annotations

from pathlib import Path

from medtl.data.sources.chexpert import FINDINGS
from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.given_columns import labels_of_columns
from medtl.data.sources.published_files import home_of, recognised, table_at
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import header, read_text
from medtl.errors import MedtlError
from medtl.settings.training import Reading

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

    The view is read from the table of metadata where it lies there.

    Raises:
        MedtlError: the table of splits, which lists the images, is not there.
    """
    root = home_of(place)
    labels, splits = table_at(root, LABELS) or place, table_at(root, SPLIT)
    if splits is None:
        raise MedtlError(f"{labels} needs {SPLIT}.gz beside it, which lists the images")
    of_studies, notes = read_text(labels)
    findings = [name for name in FINDINGS if name in of_studies]
    images, of_images = read_text(splits)
    label, of_labels, _ = labels_of_columns(labels, of_studies, findings, reading.uncertain)
    studies = of_studies[STUDY].assign(label=label)
    frame = images.merge(studies, on=STUDY, how="inner")
    said = [recognised(NAME, labels, splits), *notes, *of_images, *of_labels]
    if len(frame) < len(images):
        said.append(f"{len(images) - len(frame)} images of studies without labels are left out")
    if metadata := table_at(root, METADATA):
        views, _ = read_text(metadata)
        views = views[["dicom_id", "ViewPosition"]].rename(columns={"ViewPosition": "view"})
        frame = frame.merge(views, on="dicom_id", how="left").fillna({"view": ""})
    subject = frame["subject_id"]
    path = (
        "files/p" + subject.str[:2] + "/p" + subject + "/s" + frame["study_id"]
        + "/" + frame["dicom_id"] + ".jpg"
    )  # fmt: skip
    frame = frame.drop(columns="dicom_id").rename(columns={"subject_id": "patient"})
    split = frame["split"].map(SPLITS).fillna(frame["split"])
    frame = frame.assign(path=path, split=split)
    return checked_rows(splits, frame, reading, tuple(said), True, root)


SOURCE = Source(NAME, LAYOUT, recognises, read, tables=("mimic-cxr-2.0.0-chexpert",))
