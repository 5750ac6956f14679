"""What a table does not say of patient, study and view, filled in from the DICOM headers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from medtl.data.headers import hashed
from medtl.data.table import Table
from medtl.errors import MedtlError

IDENTIFIERS = ("patient", "study")
OF_IMAGES = ("laterality", "view")  # a case has those of several images


def filled_in(table: Table, headers: pd.DataFrame) -> tuple[Table, tuple[str, ...]]:
    """The table with what the headers know, and lines for the reader; what is there stays.

    `patient` is filled where it is '', with the study where the header names no patient, so that
    images of one study stay together; `study`, `laterality` and `view` become columns where any is
    known. One patient in every header is taken for a name that an anonymizer has put there.

    Args:
        table: a row a file, or a case.
        headers: of `Table.files()`, as `read_headers` gives them.

    Raises:
        MedtlError: a case without `patient` has images of several.
    """
    if not (headers[list(IDENTIFIERS + OF_IMAGES)] != "").any(axis=None):
        return table, ()
    images = np.arange(len(headers)) // max(1, len(table.modalities))
    columns = ("study", *(() if table.modalities else OF_IMAGES))
    frame = table.frame.copy()
    for name in columns:
        known = _first(headers[name], images)
        if known.any():
            given = frame.get(name, pd.Series("", index=frame.index))
            frame[name] = given.where(given != "", known)
    lacking = (frame["patient"] == "").to_numpy()
    patients = _first(headers["patient"], images)
    notes: list[str] = []
    if lacking.all() and len(frame) > 1 and (patients == patients[0]).all() and patients[0]:
        notes.append("all DICOM headers name one patient, who is taken for unknown")
        patients[:] = ""
    else:
        _check_cases(table, headers, images, lacking)
    # A patient whom the CSV names elsewhere keeps that name.
    names = {hashed("P", name): name for name in frame["patient"].unique() if name}
    patients = np.array([names.get(patient, patient) for patient in patients], object)
    studies = np.where(patients != "", "", _first(headers["study"], images))
    frame["patient"] = np.where(
        lacking, np.where(patients != "", patients, studies), frame["patient"]
    )
    samples = "cases" if table.modalities else "images"
    if found := int((lacking & (patients != "")).sum()):
        notes.append(f"DICOM headers name the patients of {found} {samples}, shown as hashes")
    if by_study := int((lacking & (studies != "")).sum()):
        notes.append(
            f"DICOM headers name no patient but a study for {by_study} {samples}: those of one "
            "study stay together, and one patient may have several"
        )
    return dataclasses.replace(table, frame=frame), tuple(notes)


def _first(values: pd.Series, samples: np.ndarray) -> np.ndarray:
    """For each sample the first of its values that is not '' (object [N])."""
    return values.mask(values == "").groupby(samples).first().fillna("").to_numpy(dtype=object)


def _check_cases(
    table: Table, headers: pd.DataFrame, images: np.ndarray, lacking: np.ndarray
) -> None:
    patients = headers["patient"]
    counts = patients.mask(patients == "").groupby(images).nunique().to_numpy()
    mixed = table.frame.loc[lacking & (counts > 1), table.naming].tolist()
    if mixed:
        more = ", ..." if len(mixed) > 3 else ""
        count = f"{len(mixed)} {'case has' if len(mixed) == 1 else 'cases have'}"
        raise MedtlError(
            f"{table.name}: {count} images of several patients by their DICOM headers "
            f"({', '.join(mixed[:3])}{more}); correct the cases, or give each its patient"
        )
