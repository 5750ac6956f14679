"""Manifest of a data set: one row an image or case, with label, patient and split."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.data.label_encoding import (
    has_findings,
    in_given_order,
    in_order,
    in_plain_order,
    named_findings,
    positive_class_note,
    refuse_rows,
    two_classes,
)
from medtl.data.patients import with_patients
from medtl.data.printable_names import on_disk, printable
from medtl.data.reader_votes import (
    NO_MAJORITY,
    VOTES,
    majority,
    votes_in_two_classes,
    with_first_of_votes,
)
from medtl.data.sources.csv_columns import FILE, FRAME, SPLIT_NAMES
from medtl.data.sources.csv_file import lists_images
from medtl.data.sources.registry import embedded, source_of, sources
from medtl.data.text_normalization import in_one_form
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.decode import pages
from medtl.settings.data import ALL, FIRST, Reading

CASE, MODALITY = "case", "modality"
IMAGE = "image_"
"""Before the name of a modality: the column that holds the path of its image."""


def has_cases(file: Path, frame: pd.DataFrame) -> bool:
    """Returns whether the rows of a table are images of cases.

    Raises:
        MedtlError: it has one of the two columns that are needed, and not the other.
    """
    given = [name for name in (CASE, MODALITY) if name in frame]
    if len(given) == 1:
        other = MODALITY if given == [CASE] else CASE
        raise MedtlError(f"{file} has the column {given[0]} and not {other}: give both, or neither")
    return bool(given)


def joined(file: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Joins the images of each case to one row; returns the rows and the sorted modalities.

    Args:
        file: the CSV, for messages.
        frame: a row an image, as `read_csv` gives it, with `case` and `modality`.

    Returns:
        Columns `case`, `label`, `patient`, `split`, what else the first row of the case had, and
        an `image_MODALITY` with the path for each modality ('' where the case has none).

    Raises:
        MedtlError: a row lacks its case or modality, a case has two images of one modality, or
            its rows differ in label, patient or split.
    """
    for column in (CASE, MODALITY):
        empty = frame[column] == ""
        refuse_rows(file, frame, empty, f"no {column}", f"give each row its {column}")
    again = frame.duplicated([CASE, MODALITY])
    remedy = "give every image of a case a modality of its own"
    refuse_rows(file, frame, again, "a modality that its case has before", remedy)
    optional = [name for name in ("fold", VOTES) if name in frame]
    for column in ("label", "patient", "split", *optional):
        differs = frame[column] != frame.groupby(CASE)[column].transform("first")
        remedy = f"a case has one {column}; cases of two patients need names of their own"
        refuse_rows(file, frame, differs, f"another {column} than their case", remedy)
    modalities = tuple(sorted(frame[MODALITY].unique()))
    cases = frame.drop_duplicates(CASE).drop(columns=["path", MODALITY]).set_index(CASE)
    paths = frame.pivot(index=CASE, columns=MODALITY, values="path").fillna("")
    for name in modalities:
        cases[f"{IMAGE}{name}"] = paths[name]
    return cases.reset_index(), modalities


def incomplete(frame: pd.DataFrame, modalities: tuple[str, ...]) -> list[str]:
    """Returns a line for each missing image of a case."""
    lines = []
    for name in modalities:
        lacking = frame.loc[frame[f"{IMAGE}{name}"] == "", CASE]
        lines += [f"{case} has no {name}" for case in lacking]
    return sorted(lines)


EMBEDDED = tuple(embedded())
"""Names of the data sets that the project brings along."""


@dataclass(frozen=True)
class Table:
    """Rows of a data set, before any image is opened.

    Attributes:
        name: the data set's own name (see `data_name`).
        root: base folder of relative paths.
        frame: columns `path` (relative to root, or absolute), `label`, `patient` ('' where
            unknown), `split` (train, valid, test, or '' where unknown), and what else a CSV had.
            Of cases of several images: `case` instead of `path`, and `image_MODALITY` with the
            path of each image ('' for a missing one). Of `readers=soft` also `VOTES`.
        classes: the labels in alphabetical order, or in that of `ordinal`; the index is the class
            number. Of two, the second is the positive one: `negative`, `normal` and similar come
            first. With findings, all of them.
        modalities: the M modalities of cases; empty if a row is an image.
        multi_label: true for findings (any number per image, see `findings`), not one label.
        notes: lines on omitted rows, and on merged, renamed or unused columns.
        source: name of the image folder, which several data sets may share.
    """

    name: str
    root: Path
    frame: pd.DataFrame
    classes: tuple[str, ...]
    modalities: tuple[str, ...] = ()
    multi_label: bool = False
    notes: tuple[str, ...] = ()
    source: str = ""

    @property
    def naming(self) -> str:
        """Name of the column that identifies a row: `path`, or `case`."""
        return CASE if self.modalities else "path"

    def paths(self) -> list[str]:
        """Returns the path of every image, row by row, those of a case together; '' if missing."""
        columns = [f"{IMAGE}{name}" for name in self.modalities] or ["path"]
        return self.frame[columns].to_numpy().ravel().tolist()

    def files(self) -> list[Path | None]:
        """Returns the file of each of these images."""
        paths = self.frame[FILE].tolist() if FILE in self.frame else self.paths()
        return [on_disk(self.root, path) if path else None for path in paths]

    def frames(self) -> list[int]:
        """Returns the frame of each image within its file, counted from 1."""
        each = max(1, len(self.modalities))
        numbers = self.frame[FRAME] if FRAME in self.frame else [1] * len(self.frame)
        return [int(number) for number in numbers for _ in range(each)]


def read_table(data: str, reading: Reading = Reading()) -> Table:  # noqa: B008
    """Reads the table of an embedded set (`EMBEDDED`), or of a folder or file by its source.

    With the columns `case` and `modality`, the rows of one case are one sample. If any image has
    several or unknown labels, all labels are findings. Of `reading`, `positive` reduces the labels
    to two classes (see `two_classes`), `ordinal` gives the order of the classes, `outside=allow`
    accepts paths outside a table's folder, and `patient_pattern` extracts missing patients from the
    paths.

    Raises:
        ParameterError: the folder, file or label does not exist.
        MedtlError: the data is not a valid data set.
    """
    table = _read(data, reading)
    source = data if data in EMBEDDED else table.source or _folder_name(table.root)
    return dataclasses.replace(table, source=source)


def _read(data: str, reading: Reading) -> Table:
    name, place = data_name(data), _place(data)
    rows = source_of(place, reading).read(place, reading)
    frame, notes = _in_plain_words(rows.frame, reading.patient_pattern)
    notes = tuple(dict.fromkeys(rows.notes + notes))  # merged readers name near-equal labels, too
    findings = has_findings(frame["label"]) if rows.findings is None else rows.findings
    multi_label = findings and not reading.positive
    if multi_label:
        frame = in_plain_order(place, frame)
    modalities: tuple[str, ...] = ()
    if has_cases(place, frame):
        frame, modalities = joined(place, frame)
    if multi_label:
        if reading.ordinal:
            allowed = f"empty: images of {name} have several labels, which have no order"
            raise ParameterError("ordinal", reading.ordinal, allowed)
        table = _with_findings(name, rows.root, frame, modalities, notes)
    else:
        table = _table(name, rows.root, frame, reading, modalities, notes)
    return dataclasses.replace(table, source=rows.source)


def data_name(data: str) -> str:
    """Returns the name of a data set, without reading images.

    The name is that of the folder, also for a CSV that is the only one with `path` and `label` in
    its folder, is published with it, or is named `labels`, as the folder or as a split. Any other
    of several CSVs in one folder gives FOLDER-CSV.

    Raises:
        ParameterError: the folder or file does not exist.
    """
    if data in EMBEDDED:
        return data
    place = _place(data)
    if place.is_dir():
        return _folder_name(place)
    name = _folder_name(place.parent)
    stem = Path(place.name.removesuffix(".gz")).stem.casefold()
    if source_of(place).named_by_file:
        return printable(place.stem)
    published = {table for source in sources() for table in source.tables}
    if stem in {"labels", name.casefold(), *SPLIT_NAMES, *published} or not _others(place):
        return name
    return printable(f"{name}-{place.stem}")


def _folder_name(folder: Path) -> str:
    return printable(folder.resolve().name)


def _others(file: Path) -> bool:
    """Returns whether another CSV in the folder lists labelled images, by its first line."""
    beside = (each for each in file.parent.glob("*.[cC][sS][vV]") if each.name != file.name)
    return any(each.is_file() and lists_images(each) for each in beside)


def _place(data: str) -> Path:
    """Returns the folder or file of a data set; writes an embedded one at its first use."""
    if data in EMBEDDED:
        return embedded()[data]()
    place = on_disk(Path.cwd(), os.path.expanduser(data))
    if data and (place.is_dir() or place.is_file()):
        return place
    raise ParameterError(
        "data", data, f"no such folder or file; give one, or {' or '.join(EMBEDDED)}"
    )


def _in_plain_words(frame: pd.DataFrame, pattern: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Normalizes labels and patients; returns the rows and notes."""
    labels, from_labels = in_one_form(frame["label"])
    frame, from_patients = with_patients(frame.assign(label=labels), pattern)
    return frame, from_labels + from_patients


def _table(
    name: str,
    root: Path,
    frame: pd.DataFrame,
    reading: Reading,
    modalities: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Table:
    """Checks the classes and returns the table."""
    if reading.positive:
        frame, left_out = _in_two_classes(name, frame, reading.positive)
        notes += left_out
    counts = frame["label"][frame["label"] != NO_MAJORITY].value_counts()
    if len(counts) == 1:
        raise MedtlError(
            f"{name}: all {len(frame)} images are of one class, {counts.index[0]}; "
            "at least two classes are needed"
        )
    alone = sorted(counts.index[counts == 1])
    if alone:
        raise MedtlError(
            f"{name}: a class with one image cannot be learned and tested: {', '.join(alone[:3])}"
            f"{' and more' if len(alone) > 3 else ''}; add images or leave the class out"
        )
    if reading.ordinal:
        classes = in_given_order(name, counts.index, reading.ordinal)
        notes += (f"classes in order (ordinal): {' < '.join(classes)}",)
    else:
        classes = in_order(counts.index)
        notes += positive_class_note(classes)
    if VOTES in frame:
        frame, left_out = with_first_of_votes(frame, classes)
        notes += left_out
    return Table(name, root, frame.reset_index(drop=True), classes, modalities, notes=notes)


def _in_two_classes(
    name: str, frame: pd.DataFrame, positive: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Reduces the labels to two classes; returns the rows with a known label, and a note."""
    if VOTES in frame:
        votes = votes_in_two_classes(name, frame[VOTES], positive)
        frame = frame.assign(**{VOTES: votes})
        labels = votes.map(majority, na_action="ignore")
    else:
        labels = two_classes(name, frame["label"], positive)
    known = labels.notna()
    if not known.any():
        raise MedtlError(f"{name}: of no image is it known whether it is positive={positive}")
    unknown = int((~known).sum())
    line = f"{unknown} of {len(frame)} images left out: it is unknown whether they are positive"
    return frame.assign(label=labels)[known], (line,) if unknown else ()


def _with_findings(
    name: str,
    root: Path,
    frame: pd.DataFrame,
    modalities: tuple[str, ...],
    notes: tuple[str, ...],
) -> Table:
    """Returns the table of images with any number of findings."""
    findings = named_findings(frame["label"])
    frame = frame.reset_index(drop=True)
    return Table(name, root, frame, findings, modalities, multi_label=True, notes=notes)


PAGED = (".tif", ".tiff")


def with_frames(table: Table, counts: np.ndarray, frames: str) -> tuple[Table, tuple[str, ...]]:
    """Selects frames of files; returns the table and notes.

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
            pages(file) if file and count == 1 and file.suffix.casefold() in PAGED else count
            for file, count in zip(table.files(), counts.tolist(), strict=True)
        ]
    )
    frame = table.frame.loc[np.repeat(np.arange(len(counts)), counts)]
    number = frame.groupby(level=0).cumcount() + 1
    in_several = np.repeat(counts > 1, counts)
    file = frame["path"]
    frame = frame.assign(
        **{FILE: file, FRAME: number},
        path=file.where(~in_several, file + "#" + number.astype(str)),
        patient=frame["patient"].where((frame["patient"] != "") | ~in_several, file),
    ).reset_index(drop=True)
    line = f"{(counts > 1).sum()} files with several frames gave {in_several.sum()} samples"
    return dataclasses.replace(table, frame=frame), (line,) if in_several.any() else ()
