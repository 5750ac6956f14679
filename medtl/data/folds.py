"""Folds of a cross-validation: by patient, stratified, drawn from a seed or given by a table."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.data.label_encoding import ABSENT, membership_matrix, stratification_key
from medtl.data.refused_data import RefusedDataError
from medtl.data.splits import drawn_part
from medtl.errors import MedtlError, ParameterError
from medtl.settings.data import CARVED

COLUMN = "fold"  # of a table that gives the folds
HELD_OUT = -1


@dataclass(frozen=True)
class Folds:
    """Samples outside the test split, cut into K folds.

    Attributes:
        dataset: the whole data set; its test split, which may be empty, is in no fold.
        names: K names, in order.
        fold: int64 [N], the fold that tests a sample, -1 in the test split.
        validating: bool [K, N], samples that validate the training of a fold.
        given: True if the table gives the folds.
        notes: lines on how they were made.
    """

    dataset: Dataset
    names: tuple[str, ...]
    fold: np.ndarray
    validating: np.ndarray
    given: bool
    notes: tuple[str, ...]

    @property
    def pool(self) -> np.ndarray:
        """Indices of all samples in folds, int64, ascending."""
        return np.flatnonzero(self.fold != HELD_OUT)

    @property
    def tested(self) -> np.ndarray:
        """Indices of the samples that a fold tests, int64, ascending: the pool that is measured."""
        return np.flatnonzero((self.fold != HELD_OUT) & self.dataset.measured)

    def splits(self, number: int) -> dict[str, np.ndarray]:
        """Returns the samples that fold `number` (from 0) trains on, validates on and tests.

        Samples that cannot be scored (see `Dataset.measured`) are trained on alone.
        """
        out, valid = self.fold == number, self.validating[number]
        learned = (self.fold != HELD_OUT) & ~out & ~valid
        measured = self.dataset.measured
        parts = {"train": learned, "valid": valid & measured, "test": out & measured}
        return {name: np.flatnonzero(each) for name, each in parts.items()}

    def of(self, number: int) -> Dataset:
        """Returns the data set with the splits of fold `number`; its fingerprint stays."""
        return dataclasses.replace(self.dataset, splits=self.splits(number))

    def table(self) -> pd.DataFrame:
        """Returns a row a sample: its name, label, patient, `fold` that tests it, and `valid_in`.

        `fold` is `test` in the test split; `valid_in` lists the folds whose training it validates.
        """
        names = [*self.names, "test"]  # HELD_OUT is the last place
        frame = self.dataset.frame[[self.dataset.naming, "label", "patient"]]
        validated = [
            " ".join(name for name, here in zip(self.names, column, strict=True) if here)
            for column in self.validating.T
        ]
        return frame.assign(fold=[names[number] for number in self.fold], valid_in=validated)


def draw_folds(dataset: Dataset, folds: int, seed: int) -> Folds:
    """Cuts the train and valid splits into folds; whole patients, stratified by class or finding.

    A column `fold` of the table gives the folds; else scikit-learn's `StratifiedGroupKFold` draws
    them. About 15 % of the others of each fold are drawn to validate its training.

    Args:
        dataset: as loaded; its test split stays out of all folds.
        folds: number of folds, K.
        seed: seed of both draws.

    Raises:
        ParameterError: the table gives another number of folds, or there are fewer patients.
        MedtlError: a sample has no fold, a patient is in two, or the training of a fold lacks a
            class.
    """
    pool = np.sort(np.concatenate([dataset.splits["train"], dataset.splits["valid"]]))
    fold = np.full(len(dataset.labels), HELD_OUT)
    given = _given(dataset, pool)
    if given is None:
        names = tuple(str(number + 1) for number in range(folds))
        fold[pool] = _drawn(dataset, pool, folds, seed)
        notes = [f"{folds} folds drawn by {_unit(dataset)} ({_counts(names, fold)})"]
    else:
        names = _in_order(given)
        if len(names) != folds:
            allowed = f"{len(names)}: the column {COLUMN} of {dataset.name} names {_few(names)}"
            raise ParameterError("folds", folds, allowed)
        fold[pool] = [names.index(name) for name in given]
        notes = [f"folds as given by the column {COLUMN} ({_counts(names, fold)})"]
        notes += _check_given(dataset, pool, given)
    validating = np.zeros((folds, len(fold)), bool)
    for number in range(folds):
        others = pool[fold[pool] != number]
        part = drawn_part(
            dataset.labels[others],
            len(dataset.classes),
            dataset.groups[others],
            CARVED,
            np.random.default_rng([seed, number]),
        )
        validating[number, others[part]] = True
    found = Folds(dataset, names, fold, validating, given is not None, tuple(notes))
    return dataclasses.replace(found, notes=(*found.notes, *_check_classes(found)))


def _drawn(dataset: Dataset, pool: np.ndarray, folds: int, seed: int) -> np.ndarray:
    # scikit-learn takes a second to import
    from sklearn.model_selection import StratifiedGroupKFold

    groups = dataset.groups[pool]
    patients = len(np.unique(groups))
    if patients < folds:
        raise ParameterError(
            "folds", folds, f"at most {patients}, the {_unit(dataset)}s of {dataset.name} to train"
        )
    codes = np.unique(stratification_key(dataset.labels[pool]), return_inverse=True)[1]
    # the splitter refuses data of which every class has fewer samples than folds
    strata = codes if np.bincount(codes).max() >= folds else np.zeros(len(codes), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    drawn = np.zeros(len(pool), np.int64)
    with warnings.catch_warnings():
        # a class with fewer samples than folds; `_check_classes` counts them
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, out) in enumerate(splitter.split(pool, strata, groups)):
            drawn[out] = number
    if len(np.unique(drawn)) < folds:
        allowed = f"fewer: the patients of {dataset.name} differ too much in their number of images"
        raise ParameterError("folds", folds, allowed)
    return drawn


def _given(dataset: Dataset, pool: np.ndarray) -> list[str] | None:
    """Returns the fold of each sample of the pool, None without a column for it."""
    if COLUMN not in dataset.frame:
        return None
    given = dataset.frame[COLUMN].iloc[pool].fillna("").astype(str)
    empty = given == ""
    if empty.all():
        return None
    if empty.any():
        named = dataset.frame[dataset.naming].iloc[pool[empty.to_numpy()]].tolist()
        raise MedtlError(
            f"{dataset.name}: {len(named)} of {len(pool)} rows outside the test split have no "
            f"{COLUMN} ({_few(named)}); name the fold of each, or give them split=test"
        )
    return given.tolist()


def _in_order(given: Sequence[str]) -> tuple[str, ...]:
    names = sorted(set(given))
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def _check_given(dataset: Dataset, pool: np.ndarray, given: Sequence[str]) -> list[str]:
    """Refuses patients in two folds; returns a line on identical images in two."""
    columns = [dataset.naming, "label", "patient"]
    frame = dataset.frame.iloc[pool][[*columns, "content"]].assign(fold=list(given))
    known = frame[frame["patient"] != ""]
    crossing = known[known.groupby("patient")["fold"].transform("nunique") > 1]
    if len(crossing):
        names = sorted(crossing["patient"].unique())
        count = f"{len(names)} {'patient is' if len(names) == 1 else 'patients are'}"
        raise RefusedDataError(
            f"{dataset.name}: {count} in more than one fold ({_few(names)}); give each patient "
            f"one fold, or leave the column {COLUMN} out to have folds drawn",
            dataset.name,
            "crossing_patients",
            crossing[[*columns, "fold"]].sort_values(["patient", "fold"], ignore_index=True),
        )
    copies = int((frame.groupby("content")["fold"].transform("nunique") > 1).sum())
    return [f"{copies} images are identical to one of another fold"] if copies else []


def _check_classes(folds: Folds) -> list[str]:
    """Refuses trainings without a class; returns lines on folds that test none of it.

    Findings may be missing, as long as one of them has both values.
    """
    dataset, lines = folds.dataset, []
    missing: dict[str, list[str]] = {}
    for number, name in enumerate(folds.names):
        for split, indices in folds.splits(number).items():
            labels = dataset.labels[indices]
            there = np.asarray(membership_matrix(labels, len(dataset.classes)).any(axis=0))
            if dataset.multi_label:
                enough = (there & (labels == ABSENT).any(axis=0)).any()
            else:
                enough = there.all()
            if split != "test" and not enough:
                raise MedtlError(_lacking(folds, name, split, there))
            for place in np.flatnonzero(~there):
                missing.setdefault(dataset.classes[place], []).append(f"{name} ({split})")
    for label, places in missing.items():
        lines.append(f"{label} is missing in fold {_few(places)}")
    return lines


def _lacking(folds: Folds, fold: str, split: str, there: np.ndarray) -> str:
    dataset = folds.dataset
    what = "training" if split == "train" else "validation"
    if dataset.multi_label:
        return (
            f"{dataset.name}: the {what} part of fold {fold} has no finding that some images have "
            "and others lack; give fewer folds, or add images of more patients"
        )
    label = dataset.classes[int(np.flatnonzero(~there)[0])]
    of_class = dataset.labels[folds.pool] == dataset.classes.index(label)
    patients = len(np.unique(dataset.groups[folds.pool][of_class]))
    return (
        f"{dataset.name}: the {what} part of fold {fold} has no image of {label}, which "
        f"{patients} {_unit(dataset)}{'' if patients == 1 else 's'} of all folds have; a class "
        "needs at least three, give fewer folds or add images"
    )


def _unit(dataset: Dataset) -> str:
    if dataset.has_patient.any():
        return "patient"
    return "case" if dataset.modalities else "image"


def _counts(names: Sequence[str], fold: np.ndarray) -> str:
    sizes = [f"{name}: {(fold == number).sum()}" for number, name in enumerate(names)]
    return f"samples of fold {', '.join(sizes)}"


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
