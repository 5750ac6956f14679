"""Every image decoded once: the squares in one memory-mapped file, and what each image is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from medtl.data.decode import decode
from medtl.data.depth import UnreadableImage
from medtl.data.square import square
from medtl.data.table import Table
from medtl.keep import kept_folder, key_of, written_whole
from medtl.progress import progress

_FORMAT = 2
"""Counted up when decoding or the files written here change: what was kept is then not read."""

_AHEAD = 128
"""Images in decoding at a time; bounds memory when writing is slower than decoding."""

_Image = tuple[Path | None, int]  # a file and its frame


@dataclass(frozen=True)
class Pixels:
    """The decoded images of a table.

    Attributes:
        array: [N, C, S, S], memory-mapped, in the order of `Table.files` (0 where unreadable or
            missing). C is 1 if all images are grey; the type is uint8, or uint16 if any is deeper.
        index: a row for each image: `content` (hash of the pixels at full size), `width`,
            `height`, `mode` (grey, deep grey, colour; '' where missing) and `reason` ('' for a
            readable image).
        file_sizes: int64 [N], bytes of each file (0 where missing).
    """

    array: np.ndarray
    index: pd.DataFrame
    file_sizes: np.ndarray


@dataclass(frozen=True)
class _Decoded:
    pixels: np.ndarray | None
    row: tuple[str, int, int, str, str]


def decode_all(table: Table, image_size: int) -> Pixels:
    """Decodes every image of the table to squares of `image_size`, or reads what was kept.

    What is kept is found by path, size and time of change of each file, and the frame. Unreadable
    images do not stop the work; `index` says why they are.
    """
    images = list(zip(table.files(), table.frames(), strict=True))
    known = [
        (str(file), stat.st_size, stat.st_mtime_ns, frame) if (stat := file and file.stat()) else ()
        for file, frame in images
    ]
    folder = kept_folder("pixels", key_of(known, image_size, _FORMAT))
    if not folder.is_dir():
        with written_whole(folder) as unfinished:
            _write(unfinished, images, image_size)
    return Pixels(
        array=np.load(folder / "pixels.npy", mmap_mode="r"),
        index=pd.read_csv(
            folder / "index.csv",
            dtype={"content": str, "mode": str, "reason": str},
            keep_default_na=False,
        ),
        file_sizes=np.array([stat[1] if stat else 0 for stat in known], np.int64),
    )


def _write(folder: Path, images: list[_Image], image_size: int) -> None:
    place = folder / "pixels.npy"
    shape = (len(images), 1, image_size, image_size)
    array = np.lib.format.open_memmap(place, "w+", np.uint8, shape)
    rows = []
    decoded = _decode_images(images, image_size)
    for number, image in enumerate(progress(decoded, len(images), "decoding")):
        rows.append(image.row)
        if image.pixels is not None:
            array = _wide_enough(array, image.pixels, place)
            array[number] = _as_deep(image.pixels, array.dtype)
    array.flush()
    columns = ["content", "width", "height", "mode", "reason"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "index.csv", index=False)


def _decode_images(images: list[_Image], image_size: int) -> Iterator[_Decoded]:
    """In order, by as many threads as there are processors (decoders work outside the GIL)."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(images), _AHEAD):
            batch = images[start : start + _AHEAD]
            yield from pool.map(lambda image: _decode_image(*image, image_size), batch)


def _decode_image(file: Path | None, frame: int, image_size: int) -> _Decoded:
    if file is None:
        return _Decoded(None, ("", 0, 0, "", ""))
    try:
        pixels = decode(file.read_bytes(), frame)
    except (UnreadableImage, OSError) as error:
        return _Decoded(None, ("", 0, 0, "", " ".join(str(error).split())))
    content = hashlib.blake2b(repr((pixels.shape, pixels.dtype)).encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels))
    deep = "deep grey" if pixels.dtype == np.uint16 else "grey"
    mode = "colour" if pixels.ndim == 3 else deep
    row = (content.hexdigest(), pixels.shape[1], pixels.shape[0], mode, "")
    return _Decoded(square(pixels, image_size), row)


def _wide_enough(array: np.memmap, pixels: np.ndarray, place: Path) -> np.memmap:
    """The array, written anew when this image is the first one in colour, or with 16 bits."""
    channels = max(array.shape[1], pixels.shape[0])
    dtype = np.promote_types(array.dtype, pixels.dtype)
    if (channels, dtype) == (array.shape[1], array.dtype):
        return array
    wider_place = place.with_name("wider.npy")
    shape = (array.shape[0], channels, *array.shape[2:])
    wider = np.lib.format.open_memmap(wider_place, "w+", dtype, shape)
    for start in range(0, len(array), _AHEAD):
        wider[start : start + _AHEAD] = _as_deep(array[start : start + _AHEAD], dtype)
    wider_place.replace(place)
    return wider


def _as_deep(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """8 bits as 16, so that white stays white (255 * 257 = 65535)."""
    return pixels.astype(dtype) * dtype.type(257) if pixels.dtype != dtype else pixels
