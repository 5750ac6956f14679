"""Which frames of files with several are samples: the first, one by its number, or all."""

from __future__ import annotations

import dataclasses

import numpy as np

from medtl.data.columns import FILE, FRAME
from medtl.data.decode import pages
from medtl.data.reading import ALL, FIRST
from medtl.data.table import Table
from medtl.errors import ParameterError

PAGED = (".tif", ".tiff")


def with_frames(table: Table, counts: np.ndarray, frames: str) -> tuple[Table, tuple[str, ...]]:
    """The table with the frames that are asked for, and a line for the reader where it matters.

    With `all`, each frame of a file is a row `file.dcm#3` of its own with the label and patient of
    the file. Frames of a file whose patient is not known count as one patient, named by the file,
    so that no split parts them.

    Args:
        table: a row a file, or a case.
        counts: int [N], the frames of each of `Table.files()` by the DICOM headers.
        frames: `first`, `all`, or a number from 1.

    Raises:
        ParameterError: all frames of files that are images of cases.
    """
    if frames == FIRST:
        several = int((counts > 1).sum())
        line = f"of {several} files with several frames the first was taken (frames={frames})"
        return table, (line,) if several else ()
    if frames != ALL:
        return dataclasses.replace(table, frame=table.frame.assign(**{FRAME: int(frames)})), ()
    if table.modalities:
        raise ParameterError(
            "frames", frames, "first or a number where samples are cases: one image a modality"
        )
    counts = np.array(
        [
            pages(file) if count == 1 and file.suffix.casefold() in PAGED else count
            for file, count in zip(table.files(), counts.tolist(), strict=True)
        ]
    )
    frame = table.frame.loc[np.repeat(np.arange(len(counts)), counts)]
    number = frame.groupby(level=0).cumcount() + 1
    several = np.repeat(counts > 1, counts)
    file = frame["path"]
    frame = frame.assign(
        **{FILE: file, FRAME: number},
        path=file.where(~several, file + "#" + number.astype(str)),
        patient=frame["patient"].where((frame["patient"] != "") | ~several, file),
    ).reset_index(drop=True)
    line = f"{(counts > 1).sum()} files with several frames gave {several.sum()} samples"
    return dataclasses.replace(table, frame=frame), (line,) if several.any() else ()
