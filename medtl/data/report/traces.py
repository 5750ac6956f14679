"""Traces of how images were made that their files show without the picture."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.image_files import suffix
from medtl.data.report.images import image_rows

_FRAME = re.compile(r"#\d+$")  # of a file with several, see `medtl.data.frames`


def file_traces(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Reads size, aspect ratio, mode, format and file size of N images, float64 [N, F] each.

    `frame` has `path`, `width`, `height`, `mode` (grey, deep grey, colour) and `bytes`. A missing
    image of a case has zeros, and a mode of its own.
    """
    size = frame[["width", "height"]].to_numpy(float)
    formats = frame["path"].map(lambda path: suffix(_FRAME.sub("", str(path))))
    there = size[:, 1:] > 0
    return {
        "width and height": size,
        "aspect ratio": np.divide(size[:, :1], size[:, 1:], np.zeros((len(size), 1)), where=there),
        "mode": pd.get_dummies(frame["mode"]).to_numpy(float),
        "format": pd.get_dummies(formats).to_numpy(float),
        "file size": frame[["bytes"]].to_numpy(float),
    }


def sample_traces(dataset: Dataset) -> np.ndarray:
    """Joins the `file_traces` of the images of each sample: float64 [N, M x F]."""
    values = np.concatenate(list(file_traces(image_rows(dataset)).values()), axis=1)
    return values.reshape(len(dataset.labels), -1)
