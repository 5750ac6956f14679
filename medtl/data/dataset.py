"""A data set ready to learn from: labels, patients, splits and pixels, checked."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.duplicates import check_duplicates, groups_that_stay_together
from medtl.data.pixels import Pixels, decode_all
from medtl.data.splits import SPLITS, missing_splits, patient_groups, with_splits
from medtl.data.table import Table, read_table
from medtl.errors import MedtlError


@dataclass(frozen=True)
class Dataset:
    """N readable images of K classes, in the order of their contents.

    Attributes:
        name: the data set's own name.
        classes: K labels, in the order of `Table.classes`.
        frame: a row an image: `path`, `label`, `patient`, `split`, `content`, `width`, `height`,
            `mode`, and what else the CSV had.
        labels: int64 [N], places in `classes`.
        patients: int64 [N], equal for images of one patient; an image of an unknown patient
            has a number of its own.
        splits: for train, valid and test the images that belong there, int64.
        pixels: the decoded images of the table.
        rows: int64 [N], the row of `pixels` of each image.
        fingerprint: 16 hex digits of the images' contents, labels and splits, whatever the files
            are called; data sets of one fingerprint have the same images in the same order.
        notes: what a reader of results should know: skipped, carved out, duplicated.
    """

    name: str
    classes: tuple[str, ...]
    frame: pd.DataFrame
    labels: np.ndarray
    patients: np.ndarray
    splits: dict[str, np.ndarray]
    pixels: Pixels
    rows: np.ndarray
    fingerprint: str
    notes: tuple[str, ...]

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Images as they were decoded: uint8 or uint16 [B, C, S, S], C 1 or 3."""
        return np.asarray(self.pixels.array[self.rows[indices]])


def load(
    data: str,
    image_size: int,
    seed: int,
    duplicates: str = "refuse",
    unreadable: str = "refuse",
) -> Dataset:
    """Reads, decodes, checks and splits a data set.

    Args:
        data: `phantoms`, `phantoms-source`, a folder or a CSV file (see `read_table`).
        image_size: side of the squares, in pixels.
        seed: of the splits that have to be drawn.
        duplicates: identical images under two labels or in two splits: `refuse` or `allow`.
        unreadable: images that cannot be decoded: `refuse` or `skip`.

    Raises:
        MedtlError: the data cannot be learned from; the message names what and where.
    """
    table = read_table(data)
    pixels = decode_all(table, image_size)
    notes = _unreadable(table, pixels, unreadable)
    frame = pd.concat([table.frame, pixels.index], axis=1)
    frame = frame[frame.pop("reason") == ""]
    # In the order of their contents, so that names and the order of a CSV decide nothing: equal
    # fingerprints mean equal images in equal order.
    frame = frame.sort_values(["content", "label", "split", "path"])
    rows = frame.index.to_numpy(np.int64)
    table = dataclasses.replace(table, frame=frame.reset_index(drop=True))
    patients = patient_groups(table.frame)
    drawn = missing_splits(table.frame)
    content = table.frame["content"].to_numpy()
    table = with_splits(table, seed, groups_that_stay_together(patients, content))
    frame = table.frame
    notes += _drawn(frame, drawn) + check_duplicates(table.name, frame, duplicates)
    return Dataset(
        name=table.name,
        classes=table.classes,
        frame=frame,
        labels=pd.Categorical(frame["label"], table.classes).codes.astype(np.int64),
        patients=patients,
        splits={name: np.flatnonzero(frame["split"] == name) for name in SPLITS},
        pixels=pixels,
        rows=rows,
        fingerprint=_fingerprint(frame),
        notes=notes,
    )


def _unreadable(table: Table, pixels: Pixels, unreadable: str) -> tuple[str, ...]:
    bad = pixels.index.index[pixels.index["reason"] != ""]
    if not len(bad):
        return ()
    named = [f"{table.frame['path'][row]}: {pixels.index['reason'][row]}" for row in bad[:3]]
    line = (
        f"{len(bad)} of {len(table.frame)} images cannot be read "
        f"({'; '.join(named)}{'; ...' if len(bad) > 3 else ''})"
    )
    if unreadable == "refuse":
        raise MedtlError(f"{table.name}: {line}; mend or remove them, or pass unreadable=skip")
    return (f"{line}, skipped",)


def _drawn(frame: pd.DataFrame, drawn: tuple[str, ...]) -> tuple[str, ...]:
    """What the reader should know of splits that were not given."""
    if not (frame["split"] == "train").any():
        return ("no image is for training: this data can only be evaluated on",)
    lines = []
    if drawn:
        counts = ", ".join(f"{name} {(frame['split'] == name).sum()}" for name in SPLITS)
        lines.append(f"{' and '.join(drawn)} drawn by patient ({counts} images)")
        if (frame["patient"] == "").any():
            lines.append("patients are not known for all images: unknown ones count one each")
    return tuple(lines)


def _fingerprint(frame: pd.DataFrame) -> str:
    lines = sorted((frame["content"] + " " + frame["split"] + " " + frame["label"]).tolist())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
