"""Thumbnails and descriptors of each image, from one pass over the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.blas import one_blas_thread
from medtl.cache import nameless_file
from medtl.data.dataset import Dataset
from medtl.data.manifest import IMAGE

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of red, green and blue (ITU-R BT.601)
BLOCK = 64  # images that are read from disk at a time


@dataclass(frozen=True)
class ImageRows:
    """N images that are there and can be read.

    Attributes:
        frame: a row an image: `path`, `label`, `patient` ('' where unknown), `split`, `content`
            (equal where the pixels are), `width`, `height`, `mode` and `bytes` (of the file).
        labels: int64 [N], places in the classes; of findings int8 [N, K].
        patients: int64 [N], equal for images of one patient; an unknown one has its own.
        rows: int64 [N], the row of `array` of each image.
        array: the decoded squares, [., C, S, S], uint8 or uint16.
    """

    frame: pd.DataFrame
    labels: np.ndarray
    patients: np.ndarray
    rows: np.ndarray
    array: np.ndarray

    def pictures(self, indices: np.ndarray) -> np.ndarray:
        """Returns the decoded images: [B, C, S, S]."""
        return np.asarray(self.array[self.rows[indices]])

    def grey_blocks(self) -> Iterator[np.ndarray]:
        """Yields all images in their order, as grey values from 0 to 1: float32 [B, S, S]."""
        white = np.float32(np.iinfo(self.array.dtype).max)
        for start in range(0, len(self.rows), BLOCK):
            block = self.array[self.rows[start : start + BLOCK]].astype(np.float32) / white
            yield block[:, 0] if block.shape[1] == 1 else np.tensordot(GREY, block, (0, 1))


def image_rows(dataset: Dataset) -> pd.DataFrame:
    """Builds the rows of `ImageRows.frame`, also of missing images (`content` is '')."""
    columns = [f"{IMAGE}{name}" for name in dataset.modalities] or ["path"]
    rows = dataset.rows.ravel()
    sample = np.repeat(np.arange(len(dataset.labels)), len(columns))
    known = dataset.pixels.index.iloc[rows].reset_index(drop=True)
    return pd.DataFrame(
        {
            "path": dataset.frame[columns].to_numpy().ravel(),
            **{name: dataset.frame[name].to_numpy()[sample] for name in ("label", "patient")},
            "split": dataset.frame["split"].to_numpy()[sample],
            **{name: known[name] for name in ("content", "width", "height", "mode")},
            "bytes": dataset.pixels.file_sizes[rows],
        }
    )


def images_of(dataset: Dataset) -> ImageRows:
    """Returns the images of a data set, without missing images of cases."""
    frame, rows = image_rows(dataset), dataset.rows.ravel()
    sample = np.repeat(np.arange(len(dataset.labels)), max(1, len(dataset.modalities)))
    there = np.flatnonzero(frame["content"] != "")
    return ImageRows(
        frame=frame.iloc[there].reset_index(drop=True),
        labels=dataset.labels[sample][there],
        patients=dataset.patients[sample][there],
        rows=rows[there],
        array=dataset.pixels.array,
    )


THUMBNAIL = 64  # pixels of a side
BORDER = 16  # the border strip is this part of the side
SMOOTHEST = 0.01  # of white: an image whose grey values differ by less (their deviation) is blank


@dataclass(frozen=True)
class Looks:
    """Thumbnails and descriptors of N images.

    Attributes:
        thumbnails: float16 [N, 64, 64], grey, 0 to 1; memory-mapped.
        borders: float32 [N, 4], the mean grey of the strip at the top, bottom, left and right.
        deviation: float32 [N], standard deviation of the grey values.
    """

    thumbnails: np.ndarray
    borders: np.ndarray
    deviation: np.ndarray

    @property
    def blank(self) -> np.ndarray:
        """Blank images, bool [N]."""
        return self.deviation < SMOOTHEST


@one_blas_thread
def looks_of(images: ImageRows) -> Looks:
    """Reads every image once; takes 8 kB per image, in an unnamed file in the cache.

    Raises:
        CannotKeepError: the cache is full or not writable.
    """
    count, side = len(images.rows), images.array.shape[-1]
    shrink = mean_over_areas(side, THUMBNAIL)
    strip = max(1, side // BORDER)
    borders, deviation = np.empty((count, 4), np.float32), np.empty(count, np.float32)
    start = 0
    with nameless_file() as file:
        for grey in images.grey_blocks():
            here = slice(start, start + len(grey))
            file.write((shrink @ grey @ shrink.T).astype(np.float16).tobytes())
            strips = (grey[:, :strip], grey[:, -strip:], grey[:, :, :strip], grey[:, :, -strip:])
            borders[here] = np.stack([each.mean(axis=(1, 2)) for each in strips], axis=1)
            deviation[here] = grey.std(axis=(1, 2))
            start += len(grey)
        file.flush()
        thumbnails = np.memmap(file, np.float16, "r", shape=(count, THUMBNAIL, THUMBNAIL))
    return Looks(thumbnails, borders, deviation)


def mean_over_areas(side: int, smaller: int) -> np.ndarray:
    """Returns the matrix [smaller, side] that averages over `smaller` equal parts."""
    edges = np.arange(smaller + 1) * side / smaller
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (overlap.clip(0) * smaller / side).astype(np.float32)
