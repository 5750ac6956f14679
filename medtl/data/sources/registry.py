"""Registry of the sources of data: each module of this folder adds its own by a `SOURCE`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pandas as pd

from medtl.data import sources as package
from medtl.errors import MedtlError
from medtl.settings.data import PLAIN, Reading

LAYOUT, TABLE, FOLDER = 20, 10, 0
"""Priorities: published layouts before any table, and any table before any folder."""


@dataclass(frozen=True)
class Rows:
    """Rows of a data set as its source gives them.

    Attributes:
        root: base folder of relative paths.
        frame: text columns `path`, `label`, `patient`, `split` ('' where unknown), and others.
        notes: lines on omitted rows, and on merged, renamed or unused columns.
        findings: true if an image has any number of labels, false if it has one; None leaves it to
            the labels (see `has_findings`).
        source: name of the images' origin; '' for that of `root`.
    """

    root: Path
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    findings: bool | None = None
    source: str = ""


@dataclass(frozen=True)
class Source:
    """One form of data: a published layout, any table, any folder.

    Attributes:
        name: shown to the reader.
        priority: the recognising source of the highest priority reads a place.
        recognises: returns whether an existing folder or file has this form; reads no image.
        read: returns the rows; raises `MedtlError` if they are not a valid data set.
        tables: names (without suffix, in lower case) of the tables that come with the images. Only
            needed where a CSV with `path` and `label` may lie beside such a table: the data set is
            then still named FOLDER, and not FOLDER-TABLE (`medtl.data.manifest.data_name`).
        named_by_file: true if a file is a whole data set and gives it its name.
    """

    name: str
    priority: int
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Reading], Rows]
    tables: tuple[str, ...] = ()
    named_by_file: bool = False


@functools.cache
def sources() -> tuple[Source, ...]:
    """Returns the `SOURCE` of every module of this folder, the highest priority first."""
    found = [module.SOURCE for module in _modules() if hasattr(module, "SOURCE")]
    return tuple(sorted(found, key=lambda source: (-source.priority, source.name)))


@functools.cache
def embedded() -> Mapping[str, Callable[[], Path]]:
    """Returns the `EMBEDDED` data sets of every module: name, and function that writes them."""
    return {
        name: write
        for module in _modules()
        for name, write in getattr(module, "EMBEDDED", {}).items()
    }


def source_of(place: Path, reading: Reading = Reading()) -> Source:  # noqa: B008
    """Returns the source that reads an existing folder or file.

    `layout=plain`, and parameters that describe a table, leave out the published layouts.

    Raises:
        MedtlError: no source recognises the place.
    """
    described = reading.columns or reading.path_pattern or reading.splits
    plain = reading.layout == PLAIN or bool(described)
    for source in sources():
        if not (plain and source.priority >= LAYOUT) and source.recognises(place):
            return source
    raise MedtlError(f"{place} is no folder of images and no table")


def _modules() -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if each.name != __name__:
            yield importlib.import_module(each.name)
