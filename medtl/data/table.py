"""What a data set consists of: a row an image, with its label, patient and split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medtl.data import digits, phantoms
from medtl.data.folder import read_folder
from medtl.data.labels import read_csv
from medtl.errors import MedtlError, ParameterError

NEGATIVES = frozenset(
    ("0", "absent", "benign", "clear", "control", "false", "healthy", "neg", "negative", "no",
     "no finding", "none", "normal")
)  # fmt: skip

EMBEDDED = (*phantoms.NAMES, digits.NAME)
"""The names under which `data` takes what the project brings along."""


@dataclass(frozen=True)
class Table:
    """The rows of a data set, before any image is opened.

    Attributes:
        name: the data set's own name: that of the folder, or of the folder that holds the CSV.
        root: the folder under which all images lie.
        frame: columns `path` (relative to root, or absolute), `label`, `patient` ('' where
            unknown), `split` (train, valid, test, or '' where unknown), and what else a CSV had.
        classes: the labels in alphabetical order; a label's place here is its number. Of two,
            the second is the positive one, and `normal` and its like are always the first.
    """

    name: str
    root: Path
    frame: pd.DataFrame
    classes: tuple[str, ...]

    def files(self) -> list[Path]:
        """The image file of every row."""
        return [self.root / path for path in self.frame["path"]]


def read_table(data: str) -> Table:
    """The table of an embedded set (`EMBEDDED`), of a folder, or of a CSV file.

    A folder holds `CLASS/...`, or `train/ valid/ test/` (any of them) over classes. A CSV has the
    columns `path` and `label` and may have `patient` and `split`; its paths start at its folder.

    Raises:
        ParameterError: there is no such folder or file.
        MedtlError: it does not describe a data set that can be learned from.
    """
    if data in phantoms.NAMES:
        file = phantoms.phantoms_table(data)
        return _table(data, file.parent, read_csv(file))
    if data == digits.NAME:
        file = digits.digits_table()
        return _table(data, file.parent, read_csv(file))
    place = Path(data).expanduser().absolute()
    if data and place.is_dir():
        return _table(place.resolve().name, place, read_folder(place))
    if place.is_file():
        return _table(place.parent.resolve().name, place.parent, read_csv(place))
    raise ParameterError(
        "data", data, f"no such folder or file; give one, or {' or '.join(EMBEDDED)}"
    )


def _table(name: str, root: Path, frame: pd.DataFrame) -> Table:
    """The table, once its classes can be told apart."""
    counts = frame["label"].value_counts()
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
    return Table(name, root, frame.reset_index(drop=True), _ordered(counts.index))


def _ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Labels in alphabetical order; of two, the one that says that nothing was found is first."""
    ordered = sorted(labels)
    if len(ordered) == 2 and ordered[1].casefold() in NEGATIVES:
        ordered.reverse()
    return tuple(ordered)
