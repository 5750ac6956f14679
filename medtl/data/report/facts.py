"""The facts of a data set that a reader should know before any training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.duplicates import groups_that_stay_together
from medtl.data.report.copies import copies_of, with_copies
from medtl.data.report.images import Images, images_of
from medtl.data.report.looks import looks_of
from medtl.data.report.shortcuts import Shortcuts, shortcuts_of
from medtl.data.splits import SPLITS


@dataclass(frozen=True)
class DataFacts:
    """What was found in a data set; nothing is changed or left out because of it.

    Attributes:
        name: of the data set.
        classes: K labels.
        notes: those of the data set.
        modalities: those of its cases; none where a sample is an image.
        images: all of them.
        counts: a row a class and split: `class`, `split`, `images`, `patients` (an image of an
            unknown patient counts as one).
        patients: a row a known patient: `patient`, `images`, `labels` and `splits` (names, joined
            by a bar).
        unknown: images of unknown patients.
        sizes: a row a `width`, `height`, `mode`, the most frequent first: `images`, and a column a
            class.
        copies: a row a pair, as `copies_of` gives them, with the `path`, `label`, `split` and
            `patient` of both (`first_path`, `second_path`, ...).
        blank: the images in which nothing is to be seen: `path`, `label`, `split`, `deviation`.
        shortcuts: what the making of the images gives away; None where there are too few classes
            or patients to ask.
    """

    name: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    modalities: tuple[str, ...]
    images: Images
    counts: pd.DataFrame
    patients: pd.DataFrame
    unknown: int
    sizes: pd.DataFrame
    copies: pd.DataFrame
    blank: pd.DataFrame
    shortcuts: Shortcuts | None


def data_facts(dataset: Dataset, seed: int) -> DataFacts:
    """Looks at every image once.

    Args:
        dataset: of any splits.
        seed: of the cross-validation for shortcuts.
    """
    images = images_of(dataset)
    looks = looks_of(images)
    frame = images.frame
    copies = copies_of(images, looks)
    # a copy that is taught gives away the label of the other, whatever the trace is worth
    groups = groups_that_stay_together(images.patients, with_copies(copies, len(frame)))
    known = frame[frame["patient"] != ""]
    blank = frame[["path", "label", "split"]].assign(deviation=looks.deviation)
    return DataFacts(
        name=dataset.name,
        classes=dataset.classes,
        notes=dataset.notes,
        modalities=dataset.modalities,
        images=images,
        counts=_counts(images, dataset.classes),
        patients=_patients(known),
        unknown=len(frame) - len(known),
        sizes=_sizes(frame, dataset.classes),
        copies=_named(copies, frame),
        blank=blank[looks.blank].reset_index(drop=True),
        shortcuts=shortcuts_of(images, looks, groups, seed),
    )


def _counts(images: Images, classes: tuple[str, ...]) -> pd.DataFrame:
    frame = images.frame[["label", "split"]].assign(patient=images.patients)
    grouped = frame.groupby(["label", "split"])["patient"].agg(["size", "nunique"])
    every = pd.MultiIndex.from_product([classes, SPLITS], names=["class", "split"])
    counts = grouped.reindex(every, fill_value=0).reset_index()
    return counts.rename(columns={"size": "images", "nunique": "patients"})


def _patients(known: pd.DataFrame) -> pd.DataFrame:
    def joined(names: pd.Series) -> str:
        return "|".join(sorted(set(names)))

    grouped = known.groupby("patient")
    table = pd.DataFrame({"images": grouped.size()})
    for column in ("label", "split"):
        table[f"{column}s"] = grouped[column].agg(joined) if len(known) else ""
    return table.reset_index()


def _sizes(frame: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    keys = [frame[name] for name in ("width", "height", "mode")]
    table = pd.crosstab(keys, frame["label"]).reindex(columns=list(classes), fill_value=0)
    table.insert(0, "images", table.sum(axis=1))
    table.columns = table.columns.to_list()
    return table.reset_index().sort_values("images", ascending=False, ignore_index=True)


def _named(copies: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    named = copies[["group", "kind", "bits", "alike", "first", "second"]].copy()
    for side in ("first", "second"):
        places = copies[side].to_numpy(np.int64)
        for column in ("path", "label", "split", "patient"):
            named[f"{side}_{column}"] = frame[column].to_numpy()[places]
    return named
