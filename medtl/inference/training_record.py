"""Record of a model's training images and patients, to recognize them in other data.

A record holds hashes: neither an image nor a name can be read from it, but a given image or name
can be looked up in it. So a record is as private as the model that it is stored with.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    # a served model has a record but not the modules that read a data set
    from medtl.data.dataset import Dataset

LEARNED = ("train", "valid", "conformal")
"""Splits that a model learns from; validation selects epochs, calibrates and sets thresholds. The
part `conformal` of it, which not every data set has, sets the thresholds of prediction sets."""


@dataclass(frozen=True)
class TrainingRecord:
    """Record of the training images and patients of a model, from one data set.

    Attributes:
        data: source of the data set, within which patient names are unique.
        salt: fingerprint of the data set, the salt of the hashed names.
        images: int64 [N], sorted, the first 64 bits of the hash of each image's pixels.
        patients: int64 [M], sorted, 64 bits of the salted hash of each known name.
    """

    data: str
    salt: str
    images: np.ndarray
    patients: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> TrainingRecord:
        """Returns the record of the splits of a data set that a model learns from."""
        learned = np.concatenate(
            [dataset.splits[each] for each in LEARNED if each in dataset.splits]
        )
        frame, salt = dataset.frame.iloc[learned], dataset.fingerprint
        contents = [content for sample in frame["content"] for content in sample.split()]
        patients = [name for name in frame["patient"].unique() if name]
        return cls(
            dataset.source,
            salt,
            np.unique(_content_codes(contents)),
            np.unique(_name_codes(patients, salt)),
        )

    def among(self, dataset: Dataset, indices: np.ndarray) -> np.ndarray:
        """Flags samples (bool [n] of `indices` [n]) with an image or patient of this record.

        One image of a case suffices. Patient names are compared only if both data sets have one
        source: folders of one name, or an image in common. Otherwise equal names may be different
        patients.
        """
        known = _samples(dataset.frame["content"].tolist(), self.images)
        found = known[indices]
        if dataset.source == self.data or known.any():
            names = dataset.frame["patient"].iloc[indices].to_numpy(dtype=object)
            found |= np.isin(_name_codes(names.tolist(), self.salt), self.patients) & (names != "")
        return found

    def record(self) -> dict[str, str]:
        """Returns the record as a JSON object."""
        return {
            "data": self.data,
            "salt": self.salt,
            "images": _text(self.images),
            "patients": _text(self.patients),
        }

    @classmethod
    def of_record(cls, record: dict[str, str]) -> TrainingRecord:
        """Rebuilds the record from the result of `record()`.

        Raises:
            KeyError, ValueError: malformed record.
        """
        codes = (_codes(record[name]) for name in ("images", "patients"))
        return cls(record["data"], record["salt"], *codes)


def learned_from(
    records: Sequence[TrainingRecord], dataset: Dataset, indices: np.ndarray
) -> np.ndarray:
    """Flags samples (bool [n] of `indices` [n]) that are in any of a model's training records."""
    found = np.zeros(len(indices), bool)
    for record in records:
        found |= record.among(dataset, indices)
    return found


def _samples(contents: Sequence[str], images: np.ndarray) -> np.ndarray:
    """Flags samples (bool [N]) with an image in `images`.

    Args:
        contents: hashes of the images of each sample, separated by spaces.
        images: int64 [M], codes of images.
    """
    each = [content.split() for content in contents]
    sample = np.repeat(np.arange(len(each)), [len(parts) for parts in each])
    known = np.isin(_content_codes([part for parts in each for part in parts]), images)
    return np.bincount(sample[known], minlength=len(each)) > 0


def _content_codes(contents: Sequence[str]) -> np.ndarray:
    """Returns the first 64 bits of hashes in hex digits: int64."""
    return np.array([int(content[:16], 16) for content in contents], np.uint64).view(np.int64)


def _name_codes(names: Sequence[str], salt: str) -> np.ndarray:
    """Returns 64 bits of the salted hash of each name: int64."""
    key = salt.encode()
    hashes = (hashlib.blake2b(name.encode(), key=key, digest_size=8) for name in names)
    return np.array([int.from_bytes(each.digest()) for each in hashes], np.uint64).view(np.int64)


def _text(codes: np.ndarray) -> str:
    return base64.b64encode(codes.astype("<i8").tobytes()).decode()


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<i8").astype(np.int64)
