"""Compact descriptors of each image, from one pass over the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtl.data.report.images import Images
from medtl.keep import nameless_file

THUMBNAIL = 64  # pixels of a side
BORDER = 16  # the border strip is this part of the side
SMOOTHEST = 0.01  # of white: an image whose grey values differ by less (their deviation) is blank


@dataclass(frozen=True)
class Looks:
    """Of N images.

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


def looks_of(images: Images) -> Looks:
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
    """The matrix [smaller, side] whose product is the mean over each of `smaller` equal parts."""
    edges = np.arange(smaller + 1) * side / smaller
    pixel = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (overlap.clip(0) * smaller / side).astype(np.float32)
