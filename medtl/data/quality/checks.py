"""Checks of a data set before training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.duplicates import groups_that_stay_together
from medtl.data.label_encoding import NOT_KNOWN, membership_matrix
from medtl.data.quality.near_duplicates import (
    MOST_TURNED,
    NEAR_SIGNATURES,
    Copies,
    copies_of,
    with_copies,
)
from medtl.data.quality.shortcuts import Shortcuts, shortcuts_of
from medtl.data.quality.thumbnails import ImageRows, images_of, looks_of
from medtl.data.splits import SPLITS


@dataclass(frozen=True)
class DataFacts:
    """Findings of the data report; they do not change the data set.

    Attributes:
        name: name of the data set.
        classes: K labels.
        notes: notes of the data set, and omitted checks.
        modalities: modalities of its cases; empty if a sample is an image.
        images: all images.
        counts: one row per class (or finding) and split: `class`, `split`, `images`, `patients`
            (an image of an unknown patient counts as one).
        patients: one row per known patient: `patient`, `images`, `labels` and `splits` (names
            joined by a bar).
        unknown: number of images of unknown patients.
        unit: sampling unit of intervals, see `Dataset.unit`.
        sizes: one row per `width`, `height`, `mode`, most frequent first: `images`, and one column
            per class, in order.
        together: with findings, one row each: `finding`, `images`, `alone` (without another),
            `unknown`, and one column per finding with the number of images that have both.
        copies: one row per pair of `copies_of`, with `path`, `label`, `split` and `patient` of both
            (`first_path`, `second_path`, ...).
        blank: blank images: `path`, `label`, `split`, `deviation`.
        shortcuts: prediction of the class from acquisition traces; None with too few classes or
            patients.
    """

    name: str
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    modalities: tuple[str, ...]
    images: ImageRows
    counts: pd.DataFrame
    patients: pd.DataFrame
    unknown: int
    unit: str
    sizes: pd.DataFrame
    together: pd.DataFrame
    copies: pd.DataFrame
    blank: pd.DataFrame
    shortcuts: Shortcuts | None

    @property
    def kind(self) -> str:
        """Kind of `classes`: classes, or findings (any number per image)."""
        return "findings" if self.images.labels.ndim == 2 else "classes"


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
    # a copy in the training folds would reveal the label of the other one
    groups = groups_that_stay_together(images.patients, with_copies(copies.pairs, len(frame)))
    known = frame[frame["patient"] != ""]
    blank = frame[["path", "label", "split"]].assign(deviation=looks.deviation)
    return DataFacts(
        name=dataset.name,
        classes=dataset.classes,
        notes=dataset.notes + _not_looked_at(copies),
        modalities=dataset.modalities,
        images=images,
        counts=_counts(images, dataset.classes),
        patients=_patients(known),
        unknown=len(frame) - len(known),
        unit=dataset.unit,
        sizes=_sizes(images, dataset.classes),
        together=_together(images, dataset.classes),
        copies=_named(copies.pairs, frame),
        blank=blank[looks.blank].reset_index(drop=True),
        shortcuts=shortcuts_of(images, looks, groups, seed),
    )


def _not_looked_at(copies: Copies) -> tuple[str, ...]:
    lines: tuple[str, ...] = ()
    nearest = copies.nearest
    if nearest > 1:
        lines = ("near copies were not looked for: too many images look alike",)
    elif nearest > NEAR_SIGNATURES:
        lines = (
            f"near copies were looked for among images whose coarse pictures are alike by "
            f"{nearest:.2f}, not by {NEAR_SIGNATURES}: many images look alike",
        )
    if not copies.are_turned:
        lines += (
            f"turned and mirrored copies were not looked for: more than {MOST_TURNED:,} images",
        )
    return lines


def _a_row_a_class(images: ImageRows, classes: tuple[str, ...]) -> pd.DataFrame:
    """Repeats the row of an image for each of its classes or findings, named in `class`."""
    rows, columns = np.nonzero(membership_matrix(images.labels, len(classes)))
    frame = images.frame.iloc[rows].assign(patient=images.patients[rows])
    return frame.assign(**{"class": np.array(classes, object)[columns]})


def _together(images: ImageRows, findings: tuple[str, ...]) -> pd.DataFrame:
    """Counts co-occurring findings; no rows for single labels."""
    if images.labels.ndim == 1:
        return pd.DataFrame()
    there = membership_matrix(images.labels, len(findings)).astype(int)
    table = pd.DataFrame(there.T @ there, columns=list(findings))
    alone = there[there.sum(axis=1) == 1].sum(axis=0)
    unknown = (images.labels == NOT_KNOWN).sum(axis=0)
    first = {"finding": findings, "images": there.sum(axis=0), "alone": alone, "unknown": unknown}
    return pd.concat([pd.DataFrame(first), table], axis=1)


def _counts(images: ImageRows, classes: tuple[str, ...]) -> pd.DataFrame:
    frame = _a_row_a_class(images, classes)
    grouped = frame.groupby(["class", "split"])["patient"].agg(["size", "nunique"])
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


def _sizes(images: ImageRows, classes: tuple[str, ...]) -> pd.DataFrame:
    names = ["width", "height", "mode"]
    counts = images.frame.groupby(names).size()
    frame = _a_row_a_class(images, classes)
    table = pd.crosstab([frame[name] for name in names], frame["class"])
    table = table.reindex(counts.index, columns=list(classes), fill_value=0)
    own = [*names, "images"]
    # a class may have the name `width`
    table.columns = [f"{name} (class)" if name in own else name for name in classes]
    table.insert(0, "images", counts)
    return table.reset_index().sort_values("images", ascending=False, ignore_index=True)


def _named(copies: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    named = copies[["group", "kind", "alike", "first", "second"]].copy()
    for side in ("first", "second"):
        places = copies[side].to_numpy(np.int64)
        for column in ("path", "label", "split", "patient"):
            named[f"{side}_{column}"] = frame[column].to_numpy()[places]
    return named
