"""Label agreement of two data sets on their common images, from a hashed record of labels.

A label cannot be read from a record without the image, but can be with it, so a record is as
private as the model that it is stored with.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # a served model holds a record but not the modules that read a data set
    from medtl.data.dataset import Dataset

UNKNOWN = 0
CODES = 255  # codes of known labels, 1 to 255: different labels collide in 1 of 255 cases


@dataclass(frozen=True)
class Agreement:
    """Number of labels of common images, and of those that differ."""

    labels: int
    differ: int


@dataclass(frozen=True)
class LabelRecord:
    """Labels of all samples of one data set.

    Attributes:
        salt: the data set's fingerprint.
        samples: int64 [N], rising, 64 bits of a hash of each sample's images.
        labels: uint8 [N, L], one code per label; L is 1 for single labels, else the number of
            findings. 0 is unknown.
    """

    salt: str
    samples: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset) -> LabelRecord:
        """Builds the record of a data set, without identical images of different labels."""
        samples = sample_codes(dataset, np.arange(len(dataset.labels)))
        labels = _label_codes(dataset, samples, dataset.fingerprint)
        unique, first, place = np.unique(samples, return_index=True, return_inverse=True)
        unlike = (labels != labels[first][place]).any(axis=1)
        alike = np.bincount(place[unlike], minlength=len(unique)) == 0
        return cls(dataset.fingerprint, unique[alike], labels[first][alike])

    def agreement(self, dataset: Dataset) -> Agreement:
        """Compares the labels of common samples with a data set of the same classes."""
        samples = sample_codes(dataset, np.arange(len(dataset.labels)))
        both = np.isin(samples, self.samples)
        theirs = self.labels[np.searchsorted(self.samples, samples[both])]
        own = _label_codes(dataset, samples, self.salt)[both]
        if own.shape[1] != theirs.shape[1]:
            return Agreement(0, 0)
        known = (own != UNKNOWN) & (theirs != UNKNOWN)
        return Agreement(int(known.sum()), int((own != theirs)[known].sum()))

    def record(self) -> dict[str, str | int]:
        """Returns the record as a JSON object."""
        return {
            "salt": self.salt,
            "samples": _text(self.samples.astype("<i8")),
            "labels": _text(self.labels),
            "of_a_sample": self.labels.shape[1],
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> LabelRecord:
        """Rebuilds the record from the result of `record()`.

        Raises:
            KeyError, ValueError: malformed record.
        """
        samples = np.frombuffer(base64.b64decode(record["samples"]), "<i8").astype(np.int64)
        labels = np.frombuffer(base64.b64decode(record["labels"]), np.uint8)
        return cls(record["salt"], samples, labels.reshape(-1, record["of_a_sample"]))


def sample_codes(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Hashes the images of each sample of `indices` [n] to 64 bits: int64 [n]."""
    contents = dataset.frame["content"].iloc[indices]
    return np.array([_hash(content) for content in contents], np.uint64).view(np.int64)


def _label_codes(dataset: Dataset, samples: np.ndarray, salt: str) -> np.ndarray:
    """Hashes each label with its sample [N] and the salt to a code: uint8 [N, L]."""
    if dataset.multi_label:
        words = [[f"{salt} {name} {value}" for value in (-1, 0, 1)] for name in dataset.classes]
        keys = np.array([[_hash(word) for word in each] for each in words], np.uint64)
        key = keys[np.arange(len(keys)), dataset.labels.astype(np.int64) + 1]
        known = dataset.labels >= 0
    else:
        keys = np.array([_hash(f"{salt} {name}") for name in dataset.classes], np.uint64)
        key = keys[dataset.labels][:, None]
        known = np.ones(key.shape, bool)
    mixed = _mixed(samples.view(np.uint64)[:, None] ^ key)
    return np.where(known, 1 + mixed % np.uint64(CODES), UNKNOWN).astype(np.uint8)


def _mixed(codes: np.ndarray) -> np.ndarray:
    """Mixes the bits of uint64 codes by SplitMix64 (Steele, Lea & Flood 2014, OOPSLA)."""
    codes = (codes ^ (codes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    codes = (codes ^ (codes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return codes ^ (codes >> np.uint64(31))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
