"""Cache of decoded images: squares in one memory-mapped file, and a table of the images."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from medtl.cache import content_key, get_or_create, kept_folder
from medtl.data.decoded_image import ImageFile
from medtl.data.decoding import decode_in_order
from medtl.data.manifest import Table
from medtl.data.sources.csv_columns import FRAME
from medtl.imaging.pixels import SEVERAL, counted
from medtl.imaging.rendering import Rendering
from medtl.progress import progress

_FORMAT = 3
"""Increased when decoding or the files change, so that earlier files are not read."""

_BLOCK = 128  # images rewritten at a time


@dataclass(frozen=True)
class Pixels:
    """Decoded images of a table.

    Attributes:
        array: [N, C, S, S], memory-mapped, in the order of `Table.files` (0 where unreadable or
            missing). C is 1 if all images are grey; the type is uint8, or uint16 if any is deeper.
        index: a row for each image: `content` (hash of the pixels at full size, with
            `window=auto`: equal for all renderings), `width`,
            `height`, `mode` (grey, deep grey, colour; '' where missing) and `reason` ('' for a
            readable image).
        file_sizes: int64 [N], bytes of each file (0 where missing).
        rendering: of the files as these pixels.
        notes: lines on assumptions of the decoders.
    """

    array: np.ndarray
    index: pd.DataFrame
    file_sizes: np.ndarray
    rendering: Rendering
    notes: tuple[str, ...] = ()


def decode_all(table: Table, image_size: int | Rendering) -> Pixels:
    """Renders every image of the table, by default as a square of a side, or reads the cache.

    The cache key has path, size and modification time of each file, the frame and the rendering;
    where
    cached bytes have changed they are made again. Unreadable images are listed in `index` with
    the reason.

    Raises:
        CannotKeepError: the disk is full, or what is kept cannot be written.
    """
    rendering = Rendering.of(image_size)
    images = list(zip(table.files(), table.frames(), strict=True))
    known = [
        (str(file), stat.st_size, stat.st_mtime_ns, frame) if (stat := file and file.stat()) else ()
        for file, frame in images
    ]
    key = content_key(known, rendering.image_size, _FORMAT, *rendering.changes)
    folder = kept_folder("pixels", key)
    get_or_create(folder, lambda unfinished: _write(unfinished, images, rendering))
    index = pd.read_csv(
        folder / "index.csv",
        dtype={"content": str, "mode": str, "reason": str, "remarks": str},
        keep_default_na=False,
    )
    said = [set(text.splitlines()) for text in index.pop("remarks")]
    if FRAME in table.frame:  # a specific frame was requested
        said = [each - {SEVERAL} for each in said]
    return Pixels(
        array=np.load(folder / "pixels.npy", mmap_mode="r"),
        index=index,
        file_sizes=np.array([stat[1] if stat else 0 for stat in known], np.int64),
        rendering=rendering,
        notes=counted(table.paths(), [sorted(each) for each in said]),
    )


def _write(folder: Path, images: list[ImageFile], rendering: Rendering) -> None:
    rows = []
    place = folder / "pixels.npy"
    with closing(_Squares(place, len(images), rendering.image_size)) as squares:
        decoded = decode_in_order(images, rendering)
        for image in progress(decoded, len(images), "decoding"):
            rows.append(image.row)
            squares.add(image.pixels)
    columns = ["content", "width", "height", "mode", "reason", "remarks"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "index.csv", index=False)


class _Squares:
    """Array file that grows square by square, and is rewritten for colour or 16 bits.

    Uses plain writes, not a writable memory map: a full disk is an error, not a crash, and no
    written page stays in memory.
    """

    def __init__(self, place: Path, count: int, image_size: int) -> None:
        self._place, self._count, self._side = place, count, image_size
        self._channels, self._dtype = 1, np.dtype(np.uint8)
        self._file = self._begun(place)

    def add(self, square: np.ndarray | None) -> None:
        """Appends a square, uint8 or uint16 [C, S, S]; None is all 0."""
        if square is None:
            square = np.zeros((1, self._side, self._side), np.uint8)
        channels = max(self._channels, len(square))
        dtype = np.promote_types(self._dtype, square.dtype)
        if (channels, dtype) != (self._channels, self._dtype):
            self._widen(channels, dtype)
        self._file.write(self._wide(square[None]))

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def _widen(self, channels: int, dtype: np.dtype) -> None:
        """Rewrites the file when the first square in colour, or with 16 bits, arrives."""
        self._file.close()
        shape, before = (-1, self._channels, self._side, self._side), self._dtype
        each = self._channels * self._side**2
        self._channels, self._dtype = channels, dtype
        wider = self._place.with_name("wider.npy")
        self._file = self._begun(wider)
        with self._place.open("rb") as narrow:
            np.lib.format.read_magic(narrow)
            np.lib.format.read_array_header_1_0(narrow)
            while (squares := np.fromfile(narrow, before, _BLOCK * each)).size:
                self._file.write(self._wide(squares.reshape(shape)))
        wider.replace(self._place)

    def _wide(self, squares: np.ndarray) -> bytes:
        shape = (len(squares), self._channels, self._side, self._side)
        return np.broadcast_to(_as_deep(squares, self._dtype), shape).tobytes()

    def _begun(self, place: Path) -> BinaryIO:
        file = place.open("wb")
        shape = (self._count, self._channels, self._side, self._side)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file


def _as_deep(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Converts 8 bits to 16 so that white stays white (255 * 257 = 65535)."""
    return pixels.astype(dtype) * dtype.type(257) if pixels.dtype != dtype else pixels
