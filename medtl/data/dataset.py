"""A data set ready to learn from: labels, patients, splits and pixels, checked."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.label_encoding import (
    NOT_KNOWN,
    encode_findings,
    membership_matrix,
    named_findings,
)
from medtl.data.manifest import CASE
from medtl.data.pixel_cache import Pixels
from medtl.errors import MedtlError


@dataclass(frozen=True)
class Dataset:
    """N readable samples of K classes, in the order of their contents.

    A sample is an image, or a case of M images, one a modality.

    Attributes:
        name: the data set's own name.
        classes: K labels, or findings, in the order of `Table.classes`.
        frame: a row a sample: `path` (of a case: `case` and the `image_MODALITY`), `label`,
            `patient`, `split`, `content`, `width`, `height`, `mode` (of a case: those of its
            images, joined by a space), and what else the CSV or the DICOM headers had; patients
            from headers are hashes.
        labels: int64 [N], places in `classes`. Where samples have any number of findings, int8
            [N, K]: 1 present, 0 absent, -1 unknown.
        patients: int64 [N], equal for samples of one patient; a sample of an unknown patient
            has a number of its own.
        groups: int64 [N], equal for samples of one patient or with identical pixels (chains
            count): the units of splits, of cross-validation folds and of the bootstrap.
        splits: indices of the samples of train, valid and test, int64.
        pixels: the decoded images of the table.
        rows: int64 [N, M], the rows of `pixels` that a sample's images are in (M is 1 without
            cases).
        modalities: the M modalities of cases; none where a sample is an image.
        fingerprint: 16 hex digits of the images' contents, labels and splits, independent of file
            names; data sets of one fingerprint have the same images in the same order.
        notes: lines on skipped, carved out and duplicated samples.
        source: the name of the folder that the images are in (see `Table`).
        warnings: findings of the data report, which are repeated beside scores; empty before it.
        ordinal: true if the classes are in an order (parameter `ordinal`), such as grades.
        shares: float32 [N, K] with `readers=soft`, the share of readers for each class or finding
            (see `reader_shares`), which training fits; None trains on `labels`.
    """

    name: str
    classes: tuple[str, ...]
    frame: pd.DataFrame
    labels: np.ndarray
    patients: np.ndarray
    groups: np.ndarray
    splits: dict[str, np.ndarray]
    pixels: Pixels
    rows: np.ndarray
    modalities: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...]
    source: str
    warnings: tuple[str, ...] = ()
    ordinal: bool = False
    shares: np.ndarray | None = None

    @property
    def multi_label(self) -> bool:
        """True for findings (any number per sample), false for one label."""
        return self.labels.ndim == 2

    @property
    def naming(self) -> str:
        """Name of the column that identifies a sample: `path`, or `case`."""
        return CASE if self.modalities else "path"

    @property
    def positive(self) -> str:
        """Positive class of sensitivity, F1 and similar metrics: the second of two classes.

        '' with more classes, or with findings.
        """
        return self.classes[1] if len(self.classes) == 2 and not self.multi_label else ""

    @property
    def identity(self) -> str:
        """Hash (16 hex digits) of everything in the data that affects a training.

        Covers the fingerprint, the order of the classes and the groups; independent of the files'
        place, of the names of files and patients, and of the `allow` parameters.
        """
        _, first, place = np.unique(self.groups, return_index=True, return_inverse=True)
        shares = "" if self.shares is None else f" {self.shares.tolist()}"
        return digest(f"{self.fingerprint} {self.classes} {first[place].tolist()}{shares}")

    @property
    def measured(self) -> np.ndarray:
        """Samples that can be scored: bool [N]; not those whose readers have no majority.

        The label of the others, which only train, is the first class of their most votes.
        """
        if self.shares is None or self.multi_label:
            return np.ones(len(self.labels), bool)
        return self.shares.max(axis=1) > 0.5

    @property
    def has_patient(self) -> np.ndarray:
        """Samples of which the patient is known: bool [N].

        Not those that are grouped by their study alone (see `medtl.data.dicom_metadata`).
        """
        patient = self.frame["patient"]
        study = self.frame.get("study", pd.Series("", index=self.frame.index))
        return ((patient != "") & (patient != study)).to_numpy()

    def known_patients(self, indices: np.ndarray) -> int:
        """Returns the number of known patients of samples."""
        return self.frame["patient"].iloc[indices[self.has_patient[indices]]].nunique()

    @property
    def unit(self) -> str:
        """Sampling unit of the intervals, as in `95 % intervals over patients`."""
        known = int(self.has_patient.sum())
        samples = "cases" if self.modalities else "images"
        if known == len(self.frame):
            return "patients"
        if known == 0:
            by_study = (self.frame["patient"] != "").all()
            return f"{'studies' if by_study else samples}; patients unknown"
        return f"patients where known ({known} of {len(self.frame)} {samples})"

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Returns the decoded images of samples: uint8 or uint16 [B, C, S, S], C 1 or 3.

        Of cases [B, M, C, S, S]; a missing image is all 0.
        """
        rows = self.rows[indices]
        return np.asarray(self.pixels.array[rows if self.modalities else rows[:, 0]])

    def counts(self, indices: np.ndarray) -> np.ndarray:
        """Counts these samples by class, or by finding: int [K]."""
        return membership_matrix(self.labels[indices], len(self.classes)).sum(axis=0)

    def only(self, modality: str) -> Dataset:
        """Returns the same cases and splits with the images of one modality.

        Raises:
            MedtlError: there is no such modality.
        """
        if modality not in self.modalities:
            known = ", ".join(self.modalities) or "none: a sample is one image"
            raise MedtlError(f"{self.name} has no modality {modality}; it has {known}")
        place = self.modalities.index(modality)
        return dataclasses.replace(
            self,
            rows=self.rows[:, place : place + 1],
            modalities=(modality,),
            fingerprint=digest(f"{self.fingerprint} {modality}"),
        )


def digest(text: str) -> str:
    """Hashes a text to 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without(dataset: Dataset, labels: Collection[str]) -> Dataset:
    """Returns the data set without the samples of these labels; the splits of the others stay."""
    if not labels:
        return dataset
    kept = np.flatnonzero(~dataset.frame["label"].isin(labels))
    frame = dataset.frame.iloc[kept].reset_index(drop=True)
    classes = tuple(name for name in dataset.classes if name not in labels)
    named = ", ".join(sorted(labels))
    count = len(dataset.frame) - len(kept)
    text = f"{dataset.fingerprint} without {named}"
    return dataclasses.replace(
        dataset,
        classes=classes,
        frame=frame,
        labels=pd.Categorical(frame["label"], classes).codes.astype(np.int64),
        shares=_columns(dataset, classes, kept),
        patients=dataset.patients[kept],
        groups=dataset.groups[kept],
        splits={
            name: np.flatnonzero(np.isin(kept, indices)) for name, indices in dataset.splits.items()
        },
        rows=dataset.rows[kept],
        fingerprint=digest(text),
        notes=(*dataset.notes, f"{count} samples labelled {named} were left out"),
    )


def in_order_of(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Returns the same data with its classes in the order of `classes`, such as grades."""
    places = np.array([classes.index(name) for name in dataset.classes])
    return dataclasses.replace(
        dataset,
        classes=classes,
        labels=places[dataset.labels],
        shares=_columns(dataset, classes, np.arange(len(dataset.labels))),
        ordinal=True,
    )


def _columns(dataset: Dataset, classes: Sequence[str], rows: np.ndarray) -> np.ndarray | None:
    """Returns the shares of readers of these samples for these of the classes, in their order."""
    if dataset.shares is None:
        return None
    columns = np.array([dataset.classes.index(name) for name in classes], np.int64)
    return dataset.shares[np.ix_(rows, columns)]


def with_findings(dataset: Dataset, findings: Sequence[str]) -> Dataset:
    """Returns the same images and splits with these findings only.

    Findings that no label of the data names are unknown there, for it does not say that they were
    looked for. Other findings of the data are left out, and so are the shares of readers.

    Raises:
        MedtlError: the data names none of them.
    """
    if dataset.classes == tuple(findings):
        return dataset
    named = named_findings(dataset.frame["label"])
    strange = [name not in named for name in findings]
    if all(strange):
        raise MedtlError(
            f"{dataset.name} names {', '.join(named)}, and none of {', '.join(findings)}: the "
            "findings must have the same names"
        )
    labels = encode_findings(dataset.frame["label"], findings)
    labels[:, strange] = NOT_KNOWN
    lines = {
        "not named in this data, and so unknown": [
            name for name, is_strange in zip(findings, strange, strict=True) if is_strange
        ],
        "named in this data, and not asked about": [name for name in named if name not in findings],
    }
    added = (f"{what}: {', '.join(names)}" for what, names in lines.items() if names)
    notes = (*dataset.notes, *added)
    return dataclasses.replace(
        dataset, classes=tuple(findings), labels=labels, shares=None, notes=notes
    )
