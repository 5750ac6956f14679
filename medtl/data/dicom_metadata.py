"""Patient, study and view from DICOM headers, with hashed identifiers.

Only the elements in `_TAGS` are read: no name, no date of birth. An identifier leaves this module
as a hash under a key that is drawn once for all data of a user and stored beside the cache of the
images; without the key, no patient is found by trial. Equal identifiers have equal
hashes as long as the key stays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom

from medtl.cache import atomic_directory, content_key, get_or_create, kept_folder
from medtl.data.manifest import Table
from medtl.errors import MedtlError
from medtl.imaging.dicom_header import is_dicom
from medtl.progress import progress

COLUMNS = ("patient", "study", "laterality", "view", "frames")

_TAGS = [
    "PatientID", "StudyInstanceUID", "ImageLaterality", "Laterality", "ViewPosition",
    "NumberOfFrames",
]  # fmt: skip
_FORMAT = 2
"""Increased when the values or the files change, so that earlier files are not read."""
_KEY_BYTES = 32
_READERS = 16  # concurrently open files: on a network drive reading is mostly waiting
_BLOCK = 32  # files per task: only 132 bytes are read of other formats, less than a task costs
_NOBODY = re.compile(
    r"[0x\-_. ]*|(n/?a|no[ _-]?id|none|unknown|removed|de-?id[a-z]*|anon[a-z]*)[\W_]*",
    re.IGNORECASE,
)
"""Placeholders for the patient in anonymized files.

With a number, as in `ANON00001`, such a word is the pseudonym of one patient.
"""


def read_headers(files: list[Path | None]) -> pd.DataFrame:
    """Reads `patient`, `study`, `laterality`, `view` ('' if unknown) and `frames` of each file.

    Patient and study are hashes (`P-...`, `S-...`), laterality is L, R or B, view is the code of
    DICOM (PA, AP, LL, CC, MLO, ...). Damaged files, and other formats by their first bytes, have
    empty values and one frame. Results are cached by path, size and modification time.
    """
    table = pd.DataFrame({name: [1 if name == "frames" else ""] * len(files) for name in COLUMNS})
    present = [(place, file) for place, file in enumerate(files) if file]
    if not present:
        return table
    places, key = [place for place, _ in present], _key()
    chosen = [file for _, file in present]
    stats = [file.stat() for file in chosen]
    known = [
        (str(file), stat.st_size, stat.st_mtime_ns)
        for file, stat in zip(chosen, stats, strict=True)
    ]
    folder = kept_folder("headers", content_key(known, hashlib.sha256(key).hexdigest(), _FORMAT))

    def make(unfinished: Path) -> None:
        read = pd.DataFrame(_read_all(chosen, key), columns=COLUMNS)
        read.to_csv(unfinished / "headers.csv", index=False)

    get_or_create(folder, make)
    kept = pd.read_csv(
        folder / "headers.csv",
        dtype={name: str for name in COLUMNS if name != "frames"},
        keep_default_na=False,
    )
    table.loc[places] = kept.to_numpy()
    return table.astype({"frames": int})


def hashed(kind: str, identifier: str, key: bytes | None = None) -> str:
    """Returns an identifier as `KIND-` and ten hex digits, equal for equal ones under one key."""
    digest = hashlib.blake2b(identifier.encode(), key=key or _key(), digest_size=5)
    return f"{kind}-{digest.hexdigest()}"


def _key() -> bytes:
    folder = kept_folder("patients", "key")
    if not folder.is_dir():
        with atomic_directory(folder) as unfinished:
            (unfinished / "key").write_bytes(secrets.token_bytes(_KEY_BYTES))
    key = (folder / "key").read_bytes()
    if len(key) != _KEY_BYTES:
        raise MedtlError(
            f"{folder / 'key'} is damaged: put back a copy of it, or remove {folder} (patients "
            "then have other hashes than before)"
        )
    return key


def _read_all(files: list[Path], key: bytes) -> Iterator[tuple[str, str, str, str, int]]:
    blocks = [files[start : start + _BLOCK] for start in range(0, len(files), _BLOCK)]
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda block: [header_of(file, key) for file in block], blocks)
        each = (header for block in read for header in block)
        yield from progress(each, len(files), "reading headers")


def header_of(file: Path, key: bytes) -> tuple[str, str, str, str, int]:
    """Returns the `COLUMNS` of one file, whatever it holds; hashes are under `key`."""
    unknown = ("", "", "", "", 1)
    try:
        with open(file, "rb") as opened:
            if not is_dicom(opened.read(132)):
                return unknown
            size = opened.seek(0, os.SEEK_END)
            opened.seek(0)
            header = pydicom.dcmread(
                opened, stop_before_pixels=True, specific_tags=_TAGS, force=True
            )
        patient, study, image_side, side, view, frames = (_text(header, tag) for tag in _TAGS)
    # A damaged header raises almost anything; decoding the pixels says what is wrong with it.
    except Exception:
        return unknown
    side = image_side or side
    return (
        "" if _NOBODY.fullmatch(patient) else hashed("P", patient, key),
        hashed("S", study, key) if study else "",
        side if side in ("L", "R", "B") else "",
        # A code, and not what someone may have typed.
        view if re.fullmatch(r"[A-Z][A-Z0-9 _]{0,15}", view) else "",
        # Of no more digits than DICOM allows, and not more frames than the file has bytes.
        max(1, min(int(frames), size)) if re.fullmatch("[0-9]{1,12}", frames) else 1,
    )


def _text(header: pydicom.Dataset, tag: str) -> str:
    """Returns the bytes of an element as text; pydicom's own reading may warn and cite it."""
    element = header.get_item(tag)
    value = b"" if element is None or element.value is None else element.value
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return text.strip("\0 ")


IDENTIFIERS = ("patient", "study")
OF_IMAGES = ("laterality", "view")  # a case has those of several images


def filled_in(table: Table, headers: pd.DataFrame) -> tuple[Table, tuple[str, ...]]:
    """Fills missing values of a table from the headers; returns the table and notes.

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
    """Returns the first value that is not '' of each sample (object [N])."""
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
