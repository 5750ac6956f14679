"""Handwritten digits: an embedded data set of another domain, for comparison.

Shipped with scikit-learn (Alpaydin & Kaynak 1998, "Optical recognition of handwritten
digits", UCI Machine Learning Repository, doi:10.24432/C50P49) and written as PNG files at the first
use. Nothing is downloaded.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from medtl.cache import content_key, get_or_create, kept_folder

NAME = "digits"
"""The name under which `data` takes them."""

SIDE = 64  # pixels; they are of 8 and are made smooth, as photographs are
BRIGHTEST = 16  # the highest value in scikit-learn's arrays


def digits_table() -> Path:
    """Returns the `labels.csv` (path, label) of the 1,797 digits, written at its first use."""
    return get_or_create(kept_folder(NAME, content_key(SIDE)), _write) / "labels.csv"


def _write(folder: Path) -> None:
    # scikit-learn takes a second to import
    from sklearn.datasets import load_digits

    digits = load_digits()
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            pixels = (image / BRIGHTEST * 255).astype(np.uint8)
            name = f"d{number:04d}.png"
            large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(folder / name, compress_level=1)
            table.writerow((name, f"digit {label}"))


EMBEDDED = {NAME: digits_table}
