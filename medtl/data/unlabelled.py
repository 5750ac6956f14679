"""Unlabelled images to be predicted: a folder, a table, or one image file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medtl.cache import content_key, get_or_create, kept_folder
from medtl.data.image_files import SUFFIXES, by_suffix, find_images, suffix, with_examples
from medtl.data.label_encoding import refuse_rows
from medtl.data.manifest import CASE, EMBEDDED, IMAGE, MODALITY
from medtl.data.printable_names import on_disk, printable
from medtl.data.sources.csv_file import check_inside
from medtl.data.sources.image_paths import resolved_paths
from medtl.data.sources.phantoms.datasets import DRAWING, WRITERS
from medtl.data.sources.registry import embedded
from medtl.data.sources.table_file import read_text
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.decode import SUFFIXES as VOLUMES
from medtl.settings.data import check_columns
from medtl.settings.fields import quoted
from medtl.settings.prediction import PredictSettings

PATIENTS, SEED = 40, 1
"""Seed of new phantoms; data sets for training have another one."""
LOOKED_AT = 20  # rows in which a column of paths is looked for


@dataclass(frozen=True)
class Unlabelled:
    """N samples without labels; a sample is an image, or a case of M images, one a modality.

    Attributes:
        name: that of the folder or file.
        root: base of relative paths.
        frame: a row a sample, all text: `path`, or `case` and the `image_MODALITY`; then the other
            columns of the table.
        naming: columns of `frame` with the paths of a sample's images, M of them ('' for none).
        notes: lines on omitted files and on how the table was read.
    """

    name: str
    root: Path
    frame: pd.DataFrame
    naming: tuple[str, ...]
    notes: tuple[str, ...]

    def files(self, start: int, stop: int) -> list[list[Path | None]]:
        """Returns the files of the samples from `start` to `stop`; None for a missing image."""
        rows = self.frame[list(self.naming)].iloc[start:stop].to_numpy().tolist()
        return [[on_disk(self.root, path) if path else None for path in row] for row in rows]


def read_unlabelled(settings: PredictSettings, modalities: Sequence[str]) -> Unlabelled:
    """Reads the list of images to be predicted; opens none of them.

    Args:
        settings: place and columns.
        modalities: those of the cases that the model takes; none for single images.

    Raises:
        ParameterError: no such place or column.
        MedtlError: no images, a table that does not say where they are, or one of another kind of
            samples than the model takes.
    """
    place = _place(settings.data)
    if place.is_file() and _is_image(place):
        found = _listed(place.stem, place.parent, [place.name], ())
    elif place.is_file():
        name = settings.data if settings.data in EMBEDDED else place.stem
        return _of_table(name, place, settings, modalities)
    else:
        found = _of_folder(place)
    if modalities:
        raise MedtlError(
            f"the model takes cases of {', '.join(modalities)}, and {place} does not say which "
            f"images are one case: give a table with {_columns_of(modalities)}"
        )
    return found


def check_unlabelled_place(data: str) -> None:
    """Checks that `data` is there; draws no phantoms.

    Raises:
        ParameterError: it does not exist.
    """
    if data not in EMBEDDED:
        _place(data)


def _place(data: str) -> Path:
    """Returns the folder or file of `data`; draws new phantoms at their first use."""
    if data in WRITERS:
        folder = kept_folder("phantoms", content_key("new", data, DRAWING, SEED, PATIENTS))
        write = WRITERS[data]
        return get_or_create(folder, lambda made: write(made, SEED, PATIENTS)) / "labels.csv"
    if data in EMBEDDED:
        return embedded()[data]()
    place = on_disk(Path.cwd(), os.path.expanduser(data))
    if data and (place.is_dir() or place.is_file()):
        return place
    raise ParameterError(
        "data", data, f"no such folder or file; give one, or {' or '.join(EMBEDDED)}"
    )


def _is_image(file: Path) -> bool:
    return suffix(file.name) in SUFFIXES or file.name.casefold().endswith(VOLUMES)


def _listed(name: str, root: Path, paths: list[str], notes: tuple[str, ...]) -> Unlabelled:
    frame = pd.DataFrame({"path": list(map(printable, paths))}, dtype=object)
    return Unlabelled(printable(name), root, frame, ("path",), notes)


def _of_folder(root: Path) -> Unlabelled:
    found = find_images(root)
    others = f" (but {by_suffix(found.others)})" if found.others else ""
    if not found.images:
        raise MedtlError(f"{root} holds no images{others}")
    notes = found.notes()
    if found.others:
        line = f"files that are no images left out, {by_suffix(found.others)}"
        notes = (with_examples(line, found.others), *notes)
    return _listed(root.resolve().name, root, found.images, notes)


def _of_table(
    name: str, file: Path, settings: PredictSettings, modalities: Sequence[str]
) -> Unlabelled:
    frame, notes = read_text(file)
    frame = _renamed(file, frame, settings.columns)
    if frame.empty:
        raise MedtlError(f"{file} lists no images: it holds column names only")
    if settings.columns:
        notes += (f"columns as given: {settings.columns}",)
    columns = [f"{IMAGE}{name}" for name in modalities]
    if not modalities:
        _check_path(file, frame, settings.path_pattern)
        naming = ["path"]
    elif {CASE, MODALITY, "path"} <= set(frame):
        frame, from_cases = _joined(file, frame, modalities)
        naming, notes = columns, notes + from_cases
    else:
        naming = [name for name in columns if name in frame]
        if not naming:
            raise MedtlError(
                f"the model takes cases of {', '.join(modalities)}, and {file} has the columns "
                f"{', '.join(frame.columns)}: give {_columns_of(modalities)}"
            )
    frame = frame.assign(**{name: "" for name in columns if name not in frame})
    naming = columns or naming
    for column in naming:
        values = frame[column].str.strip()
        paths, found = resolved_paths(file.parent, values, settings.path_pattern)
        frame[column] = paths
        notes += found
        if settings.outside == "refuse":
            check_inside(file, frame.assign(path=paths), file.parent)
    first = [name for name in (CASE, *naming) if name in frame]
    frame = frame[[*first, *(name for name in frame if name not in first)]]
    return Unlabelled(printable(name), file.parent, frame, tuple(naming), notes)


def _renamed(file: Path, frame: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Names the columns `path`, `case` and `modality`, in any case or as the user says."""
    named = {name: listed[0] for name, listed in check_columns(columns).items()}
    meant = ("path", CASE, MODALITY)
    for name, column in named.items():
        if name in meant and column not in frame:
            allowed = f"of the columns of {file.name}: {', '.join(map(quoted, frame.columns))}"
            raise ParameterError("columns", column, allowed)
    found = {named[name]: name for name in meant if name in named}
    for name in meant:
        same = [each for each in frame if each.casefold() == name]
        if name not in named and len(same) == 1:
            found[same[0]] = name
    clashes = {
        name: f"csv_{name}" for name in frame if name in found.values() and name not in found
    }
    return frame.rename(columns=clashes | found)


def _check_path(file: Path, frame: pd.DataFrame, pattern: str) -> None:
    """Refuses a table without a column `path`, and says which column may hold the paths."""
    if "path" in frame:
        return
    some = frame.head(LOOKED_AT)
    near = [name for name in frame if _leads_to_files(file.parent, some[name], pattern)]
    hint = f"; if {near[0]} holds them, pass columns=path:{quoted(near[0])}" if near else ""
    cases = [name for name in frame if name.startswith(IMAGE)]
    if cases and not near:
        hint = f"; the model takes single images, and no cases of {', '.join(cases)}"
    raise MedtlError(
        f"{file} has no column path with the images; it has {', '.join(frame.columns)}{hint}"
    )


def _leads_to_files(root: Path, values: pd.Series, pattern: str) -> bool:
    paths, _ = resolved_paths(root, values.str.strip(), pattern)
    return any(path and os.path.isfile(root / path) for path in paths)


def _joined(
    file: Path, frame: pd.DataFrame, modalities: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Joins rows of an image each to a row a case, in the order of their first images."""
    for name in (CASE, MODALITY):
        frame[name] = frame[name].str.strip()
        refuse_rows(file, frame, frame[name] == "", f"no {name}", f"give each row its {name}")
    unknown = ~frame[MODALITY].isin(list(modalities))
    notes: tuple[str, ...] = ()
    if unknown.any():
        kinds = ", ".join(sorted(frame[MODALITY][unknown].unique())[:3])
        notes = (f"{unknown.sum()} images of modalities that the model does not take ({kinds}) "
                 "left out",)  # fmt: skip
        frame = frame[~unknown]
    if frame.empty:
        raise MedtlError(f"{file} has no images of {', '.join(modalities)}{notes[0]}")
    again = frame.duplicated([CASE, MODALITY])
    remedy = "give every image of a case a modality of its own"
    refuse_rows(file, frame, again, "a modality that its case has before", remedy)
    cases = frame.drop_duplicates(CASE).drop(columns=["path", MODALITY]).set_index(CASE)
    paths = frame.pivot(index=CASE, columns=MODALITY, values="path").fillna("")
    for name in paths:
        cases[f"{IMAGE}{name}"] = paths[name]
    return cases.reset_index(), notes


def _columns_of(modalities: Sequence[str]) -> str:
    columns = ", ".join(f"{IMAGE}{name}" for name in modalities)
    return f"the columns {columns}, or case, modality and path"
