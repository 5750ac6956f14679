"""The folder on which both sides train: some patients of a CSV, in folders of splits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def write_subset(table: Path, folder: Path, train: int, valid: int, test: int = 30) -> None:
    """Copies images of a CSV (`path,label,patient` and perhaps `split`) into folders of splits.

    `labels.csv` in the folder says the same, with the patients.

    Classes are equally frequent, patients are in one split only, and images of a published test
    split are left alone. Where `train` asks for more images than there are, the rest are copies
    shifted by some pixels: good for a measurement of cost, not of scores.
    """
    rows = pd.read_csv(table, dtype=str)
    if "split" in rows:
        rows = rows[rows["split"] == "train"]
    generator = np.random.default_rng(0)
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
            copied = Path(shutil.copy(table.parent / row.path, place))
            written.append((copied, row.label, row.patient, split))
        rows = rows.drop(taken.index)
    for label in labels:
        originals = [row for row in written if row[1] == label and row[3] == "train"]
        written += _write_shifted(originals, train // len(labels) - len(originals))
    names = pd.DataFrame(written, columns=["path", "label", "patient", "split"])
    names["path"] = [path.relative_to(folder).as_posix() for path in names["path"]]
    names.to_csv(folder / "labels.csv", index=False)


def _write_shifted(
    originals: list[tuple[Path, str, str, str]], count: int
) -> Iterator[tuple[Path, str, str, str]]:
    """Writes `count` shifted copies, and yields their rows."""
    for number in range(count):
        turn, index = divmod(number, len(originals))
        path, *others = originals[index]
        pixels = np.roll(np.asarray(Image.open(path)), 3 * (turn + 1), axis=1)
        copied = path.with_name(f"shifted-{turn}-{path.stem}.png")
        Image.fromarray(pixels).save(copied)
        yield (copied, *others)
