"""Images of array files (`.npz`, `.h5`), written once as PNG files into the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from medtl.cache import content_key, get_or_create, kept_folder
from medtl.errors import MedtlError
from medtl.progress import progress

_FORMAT = 1
"""Increased when the files written here change, so that earlier files are not read."""

Row = tuple[np.ndarray, str, str, str]
"""Image uint8 [H, W] or [H, W, 3], label, patient and split."""


def exported(
    kind: str, files: Iterable[Path], rows: Callable[[], Iterable[Row]], total: int
) -> tuple[Path, pd.DataFrame]:
    """Writes the images of array files once; returns their folder and rows.

    Args:
        kind: name of the layout, and of its folder in the cache.
        files: the array files, by whose place, size and time the images are found again.
        rows: gives the images, in order.
        total: number of images, for the progress bar.

    Raises:
        CannotKeepError: the cache is full or not writable.
        MedtlError: an image is no picture in 8 bits.
    """
    known = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        for file in files
        if (stat := file.stat())
    ]
    folder = get_or_create(
        kept_folder(kind, content_key(known, _FORMAT)),
        lambda unfinished: _write(unfinished, progress(rows(), total, f"writing {kind} images")),
    )
    table = pd.read_csv(folder / "labels.csv", dtype=str, keep_default_na=False)
    return folder, table


def _write(folder: Path, rows: Iterable[Row]) -> None:
    written = []
    for number, (image, label, patient, split) in enumerate(rows):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise MedtlError(f"image {number} is no picture in 8 bits: {image.dtype} {image.shape}")
        path = f"{number // 10_000:04d}/{number:07d}.png"
        (folder / path).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / path, compress_level=1)
        written.append((path, label, patient, split))
    columns = ["path", "label", "patient", "split"]
    pd.DataFrame(written, columns=columns).to_csv(folder / "labels.csv", index=False)
