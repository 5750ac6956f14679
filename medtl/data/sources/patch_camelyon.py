"""PatchCamelyon as published: `.h5` files of patches and labels for each split.

Veeling et al. 2018, "Rotation Equivariant CNNs for Digital Pathology", MICCAI.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medtl.data.sources.csv_file import checked_rows
from medtl.data.sources.exported_arrays import Row, exported
from medtl.data.sources.published_files import home_of, recognised, table_at
from medtl.data.sources.registry import LAYOUT, Rows, Source
from medtl.data.sources.table_file import read_text
from medtl.errors import MedtlError
from medtl.settings.data import Reading

NAME = "PatchCamelyon"
SPLITS = ("train", "valid", "test")
LABELS = ("no tumour", "tumour")
SLIDE = "wsi"
_DAMAGED = (OSError, KeyError, RuntimeError, ValueError, IndexError, TypeError, MemoryError)
_BLOCK = 1024  # patches read at a time


def recognises(place: Path) -> bool:
    """Returns whether a place is, or is in, a folder with the patches of a split."""
    root = home_of(place)
    named = place.is_dir() or place.name.startswith("camelyonpatch_level_2_split_")
    return named and any(_file(root, split, "x").is_file() for split in SPLITS)


def read(place: Path, reading: Reading) -> Rows:
    """Reads patches, labels and splits; patches are written once as PNG files into the cache.

    The slide of each patch is its patient, where the published table of a split is there.

    Raises:
        MedtlError: h5py is not installed, or a file is missing or cannot be read.
    """
    root = home_of(place)
    try:
        import h5py
    except ImportError as error:
        raise MedtlError("PatchCamelyon needs pip install h5py") from error
    splits = [split for split in SPLITS if _file(root, split, "x").is_file()]
    files = [_file(root, split, kind) for split in splits for kind in "xy"]
    for file in files:
        if not file.is_file():
            raise MedtlError(f"{file} is not there: unpack it beside the others")
    slides = {split: _slides(root, split) for split in splits}

    def rows() -> Iterator[Row]:
        for split in splits:
            with (
                h5py.File(_file(root, split, "x")) as patches,
                h5py.File(_file(root, split, "y")) as labels,
            ):
                images, numbers = patches["x"], np.asarray(labels["y"]).reshape(-1)
                for start in range(0, len(numbers), _BLOCK):
                    block = np.asarray(images[start : start + _BLOCK])
                    for number, image in enumerate(block, start=start):
                        slide = slides[split][number] if slides[split] else ""
                        yield image, LABELS[int(numbers[number])], slide, split

    try:
        counts = []
        for split in splits:
            with h5py.File(_file(root, split, "y")) as labels:
                counts.append(len(labels["y"]))
        folder, frame = exported("patchcamelyon", files, rows, sum(counts))
    except _DAMAGED as error:
        raise MedtlError(f"{root} cannot be read ({' '.join(str(error).split())})") from error
    said = [recognised(NAME, *files[::2])]
    known = all(slides.values())
    said.append("patches of one slide count as one patient" if known else "slides are unknown")
    read_as = checked_rows(files[0], frame, reading, tuple(said), False, folder)
    return Rows(folder, read_as.frame, read_as.notes, False, root.resolve().name)


def _file(root: Path, split: str, kind: str) -> Path:
    return root / f"camelyonpatch_level_2_split_{split}_{kind}.h5"


def _slides(root: Path, split: str) -> list[str]:
    table = table_at(root, f"camelyonpatch_level_2_split_{split}_meta.csv")
    if table is None:
        return []
    frame, _ = read_text(table)
    return frame[SLIDE].tolist() if SLIDE in frame else []


SOURCE = Source(NAME, LAYOUT, recognises, read)
