"""Folder of images that all sides train on: some patients of a data set, in splits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SHIFTED = "shifted-"  # prefix of the names of shifted copies
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")  # as ImageFolder reads them too


@contextmanager
def subset_of(
    data: Path, train: int, valid: int = 150, test: int = 30, seed: int = 0
) -> Iterator[tuple[Path, Path]]:
    """Yields a folder of images in splits and a cache folder, and removes both afterwards."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        write_subset(data, folder, train, valid, test, seed)
        yield folder, Path(root) / "cache"


def write_subset(
    data: Path, folder: Path, train: int, valid: int, test: int = 30, seed: int = 0
) -> None:
    """Copies images of a data set into folders of splits.

    `data` is a CSV (`path,label,patient` and optionally `split`), or a folder `CLASS/...`, in which
    each image counts as a patient. `labels.csv` in the new folder lists the copied images.

    Classes are equally frequent, patients are in one split only, and images of a published test
    split are not used. The seed draws the patients. If there are fewer than `train` images, the
    rest are copies shifted by some pixels, which are good for measuring cost, not scores.
    """
    rows = _images_of(data)
    generator = np.random.default_rng(seed)
    patients = generator.permutation(rows["patient"].unique())
    rows = rows.set_index("patient").loc[patients].reset_index()
    labels = sorted(rows["label"].unique())
    written = []
    split_of: dict[str, str] = {}
    for split, count in (("test", test), ("valid", valid), ("train", train)):
        free = rows[[split_of.get(patient, split) == split for patient in rows["patient"]]]
        taken = free.groupby("label").head(count // len(labels))
        split_of |= dict.fromkeys(taken["patient"], split)
        for row in taken.itertuples():
            place = folder / split / row.label
            place.mkdir(parents=True, exist_ok=True)
            copied = Path(shutil.copy(row.path, place))
            written.append((copied, row.label, row.patient, split))
        rows = rows.drop(taken.index)
    for label in labels:
        originals = [row for row in written if row[1] == label and row[3] == "train"]
        written += _write_shifted(originals, train // len(labels) - len(originals))
    names = pd.DataFrame(written, columns=["path", "label", "patient", "split"])
    names["path"] = [path.relative_to(folder).as_posix() for path in names["path"]]
    names.to_csv(folder / "labels.csv", index=False)


def _images_of(data: Path) -> pd.DataFrame:
    """Reads the usable images: columns `path`, `label`, `patient`."""
    if data.is_dir():
        files = sorted(each for each in data.rglob("*") if each.suffix.casefold() in SUFFIXES)
        named = [(each, each.relative_to(data).parts[0], str(each)) for each in files]
        return pd.DataFrame(named, columns=["path", "label", "patient"])
    rows = pd.read_csv(data, dtype=str)
    if "split" in rows:
        rows = rows[rows["split"] == "train"]
    return rows.assign(path=[data.parent / path for path in rows["path"]])


def _write_shifted(
    originals: list[tuple[Path, str, str, str]], count: int
) -> Iterator[tuple[Path, str, str, str]]:
    """Writes `count` shifted copies, and yields their rows."""
    for number in range(count):
        turn, index = divmod(number, len(originals))
        path, label, patient, split = originals[index]
        pixels = np.roll(np.asarray(Image.open(path)), 3 * (turn + 1), axis=1)
        copied = path.with_name(f"{SHIFTED}{turn}-{path.stem}.png")
        Image.fromarray(pixels).save(copied)
        yield copied, label, patient, split
