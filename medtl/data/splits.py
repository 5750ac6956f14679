"""Train, validation and test splits: stratified, by patient, drawn from a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.data.label_encoding import encode_findings, membership_matrix
from medtl.data.manifest import Table
from medtl.data.reader_votes import VOTES, majority
from medtl.data.refused_data import RefusedDataError
from medtl.errors import MedtlError
from medtl.settings.data import CARVED

SPLITS = ("train", "valid", "test")


def with_splits(
    table: Table, seed: int, groups: np.ndarray | None = None, holdout: float = CARVED
) -> Table:
    """Fills the split of every row.

    Given splits stay. If `valid` or `test` is missing, about 15 % of all images are drawn for it
    from `train` and the rows without a split: whole groups, stratified by class (or by finding).
    A table with only `test` or only `valid` rows is for evaluation and stays as it is.

    Args:
        table: result of `read_table`.
        seed: seed of the draw.
        groups: [N], sortable; rows of equal value stay together. Defaults to the patients, with
            one group per row of an unknown patient.
        holdout: share that is drawn for `test`; 0 draws none.

    Raises:
        RefusedDataError: a patient is in two given splits; its table lists all of them.
        MedtlError: a split would lack a class (a missing finding is allowed).
    """
    frame = table.frame
    _check_patients(table)
    split = frame["split"].where(frame["split"] != "", "train").to_numpy(dtype=object, copy=True)
    if not (split == "train").any():
        return dataclasses.replace(table, frame=frame.assign(split=split))
    sorts = _sorts(table)
    groups = patient_groups(frame) if groups is None else np.unique(groups, return_inverse=True)[1]
    shares = {"test": holdout, "valid": CARVED}
    for number, name in enumerate(missing_splits(frame)):
        if not shares[name]:
            continue
        pool = np.flatnonzero(split == "train")
        random = np.random.default_rng([seed, number])
        wanted = _wanted(sorts, shares[name])
        split[pool[_taken(sorts[pool], groups[pool], wanted, random)]] = name
    if not table.multi_label:
        given = (split == "test").any()
        _check_classes(table, split, SPLITS if holdout or given else SPLITS[:-1])
    return dataclasses.replace(table, frame=frame.assign(split=split))


def with_splits_of_measured(
    table: Table, seed: int, groups: np.ndarray, holdout: float
) -> tuple[Table, np.ndarray]:
    """Fills the splits (see `with_splits`) as if all images had a majority of readers.

    Images without one train, unless their patient or the table puts them into another split.

    Returns:
        The table, and which of its rows are used: bool [N].
    """
    frame = table.frame
    decided = np.full(len(frame), True)
    if VOTES in frame and not table.multi_label:
        decided = (frame[VOTES].map(majority) == frame["label"]).to_numpy()
    if decided.all():
        return with_splits(table, seed, groups, holdout), decided
    own = dataclasses.replace(table, frame=frame[decided].reset_index(drop=True))
    split = frame["split"].to_numpy(dtype=object, copy=True)
    # numbered by first appearance, as groups are: the draw depends on their order
    units = pd.factorize(groups[decided])[0]
    split[decided] = with_splits(own, seed, units, holdout).frame["split"]
    by_group = dict(zip(groups[decided].tolist(), split[decided].tolist(), strict=True))
    for row in np.flatnonzero(~decided & np.isin(split, ("", "train"))):
        split[row] = by_group.get(int(groups[row]), "train")
    used = decided | (split == "train")
    return dataclasses.replace(table, frame=frame.assign(split=split)), used


def drawn_part(
    labels: np.ndarray,
    classes: int,
    groups: np.ndarray,
    share: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Draws about `share` of N images by whole groups, stratified by class or finding: bool [N].

    `labels` are int [N] of `classes`, or int8 [N, K] of findings; `groups` [N] are sortable.
    """
    sorts = membership_matrix(labels, classes)
    if labels.ndim == 2:
        sorts = np.column_stack([sorts, ~sorts.any(axis=1)])
    return _taken(sorts, groups, _wanted(sorts, share), random)


def missing_splits(frame: pd.DataFrame) -> tuple[str, ...]:
    """Returns those of test and valid without a row."""
    return tuple(name for name in ("test", "valid") if not (frame["split"] == name).any())


def patient_groups(frame: pd.DataFrame) -> np.ndarray:
    """Returns a number for each patient: int64 [N]; a row of an unknown patient has its own."""
    known = frame["patient"] != ""
    names = ("known " + frame["patient"]).where(known, "row " + frame.index.astype(str))
    return pd.factorize(names)[0].astype(np.int64)


def _sorts(table: Table) -> np.ndarray:
    """Flags the class of each row, bool [N, K]; or its findings and their absence, [N, K + 1]."""
    labels = table.frame["label"]
    if not table.multi_label:
        codes = pd.Categorical(labels, categories=table.classes).codes
        return membership_matrix(codes, len(table.classes))
    present = membership_matrix(encode_findings(labels, table.classes), len(table.classes))
    return np.column_stack([present, ~present.any(axis=1)])


def _wanted(sorts: np.ndarray, share: float) -> np.ndarray:
    """Returns the images of each class that a share of all has, at least one: float [K]."""
    present = sorts.sum(axis=0)
    return np.maximum(share * present, 1) * (present > 0)


def _taken(
    sorts: np.ndarray, groups: np.ndarray, wanted: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draws whole groups whose classes come near `wanted` (images a class): rows, bool [N].

    `sorts` bool [N, K] says of which classes a row is.

    Greedy, in random order so that large groups are as likely as small ones: a group is taken
    when it brings the counts nearer to what is wanted, each class measured by its own want.
    """
    names, places = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(wanted)))
    np.add.at(counts, places, sorts)
    taken, missing = np.zeros(len(names), bool), wanted.astype(np.float64)
    scale = 1 / np.maximum(wanted, 1e-9) ** 2
    for group in random.permutation(len(names)):
        after = missing - counts[group]
        if (after * after * scale).sum() < (missing * missing * scale).sum():
            taken[group], missing = True, after
    return taken[places]


def _check_patients(table: Table) -> None:
    """Refuses given splits that share patients."""
    known = table.frame[(table.frame["patient"] != "") & (table.frame["split"] != "")]
    shared = known.groupby("patient", sort=True)["split"].unique()
    shared = shared[shared.map(len) > 1]
    if len(shared):
        named = ", ".join(
            f"{patient} ({', '.join(sorted(splits))})" for patient, splits in shared[:3].items()
        )
        more = ", ..." if len(shared) > 3 else ""
        count = f"{len(shared)} {'patient is' if len(shared) == 1 else 'patients are'}"
        # A patient may be known by a hash alone, so two of the images are named.
        first = known[known["patient"] == shared.index[0]].drop_duplicates("split")
        images = " and ".join(first[table.naming].iloc[:2])
        rows = known[known["patient"].isin(shared.index)]
        listed = rows[["patient", "split", table.naming, "label"]]
        raise RefusedDataError(
            f"{table.name}: {count} in more than one split: {named}{more} (first {images}); "
            "give each patient to one split, or leave the split out to have it drawn",
            table.name,
            "crossing_patients",
            listed.sort_values(["patient", "split"], kind="stable", ignore_index=True),
        )


def _check_classes(table: Table, split: np.ndarray, names: Sequence[str]) -> None:
    """Refuses a split of these that lacks a class."""
    counts = pd.crosstab(table.frame["label"], split)
    counts = counts.reindex(index=list(table.classes), columns=list(SPLITS), fill_value=0)
    for name in names:
        lacking = counts.index[counts[name] == 0]
        if len(lacking):
            raise MedtlError(
                f"{table.name}: the {name} split has no image of class {lacking[0]} "
                f"({counts.loc[lacking[0]].sum()} in all); add images of at least three patients "
                "to the class, or give the splits yourself"
            )


def nested_share(
    labels: np.ndarray, patients: np.ndarray, fraction: float, seed: int
) -> np.ndarray:
    """Draws about `fraction` of N images by whole patients: rows, int64, ascending.

    Every class gives about that share of its patients' images, and at least one patient. With one
    seed a smaller share lies within every larger one, so that a curve over sizes adds images and
    exchanges none. A patient counts for the class that most of its images have.

    Args:
        labels: int [N].
        patients: int [N], equal for images of one patient.
        fraction: above 0, at most 1.
        seed: decides in which order patients are taken.
    """
    names, places, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), int)
    np.add.at(counts, (places, labels), 1)
    classes = counts.argmax(axis=1)
    order = np.random.default_rng(seed).permutation(len(names))
    taken = np.zeros(len(names), bool)
    for kind in np.unique(classes):
        of_kind = order[classes[order] == kind]
        middle = np.cumsum(sizes[of_kind]) - sizes[of_kind] / 2
        # the patient at whose middle the share is reached is the last one
        taken[of_kind] = middle <= fraction * sizes[of_kind].sum()
        taken[of_kind[0]] = True
    return np.flatnonzero(taken[places])
