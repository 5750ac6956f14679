"""Every image of a data set by itself; those of a case one by one, each with the case's label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.cases import IMAGE
from medtl.data.dataset import Dataset

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of red, green and blue (ITU-R BT.601)
BLOCK = 64  # images that are read from disk at a time


@dataclass(frozen=True)
class Images:
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
        """Images as they were decoded: [B, C, S, S]."""
        return np.asarray(self.array[self.rows[indices]])

    def grey_blocks(self) -> Iterator[np.ndarray]:
        """Yields all images in their order, as grey values from 0 to 1: float32 [B, S, S]."""
        white = np.float32(np.iinfo(self.array.dtype).max)
        for start in range(0, len(self.rows), BLOCK):
            block = self.array[self.rows[start : start + BLOCK]].astype(np.float32) / white
            yield block[:, 0] if block.shape[1] == 1 else np.tensordot(GREY, block, (0, 1))


def image_rows(dataset: Dataset) -> pd.DataFrame:
    """Builds the rows of `Images.frame`, also of missing images (`content` is '')."""
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


def images_of(dataset: Dataset) -> Images:
    """The images of a data set; a missing image of a case is none of them."""
    frame, rows = image_rows(dataset), dataset.rows.ravel()
    sample = np.repeat(np.arange(len(dataset.labels)), max(1, len(dataset.modalities)))
    there = np.flatnonzero(frame["content"] != "")
    return Images(
        frame=frame.iloc[there].reset_index(drop=True),
        labels=dataset.labels[sample][there],
        patients=dataset.patients[sample][there],
        rows=rows[there],
        array=dataset.pixels.array,
    )
