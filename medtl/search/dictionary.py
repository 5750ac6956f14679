"""The OCL dictionary: what finished searches found, and which of them a new data set is like.

Boit & Zeng 2019 (Dakota State Annual Research Symposium 16) name such an index of the
representations that a network learned as future work. How an entry describes its data, and the
distance between two data sets, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LARGEST = 512  # numbers of a description: longer features are averaged in equal runs


@dataclass(frozen=True)
class Description:
    """A data set as a backbone sees it: mean and spread of each pooled feature before the head."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(cls, features: np.ndarray) -> Description:
        """The description of features [N, F], rounded to four digits."""
        runs = np.array_split(np.arange(features.shape[1]), min(LARGEST, features.shape[1]))
        grouped = np.stack([features[:, run].mean(axis=1) for run in runs], axis=1)
        mean, spread = grouped.mean(axis=0), grouped.std(axis=0)
        return cls(*(tuple(float(f"{v:.4g}") for v in values) for values in (mean, spread)))


@dataclass(frozen=True)
class Entry:
    """What one finished search found."""

    architecture: str
    weights: str
    backbone: str  # digest of the weights: only equal backbones see alike
    data: str
    fingerprint: str
    cutoff: str
    recipe: dict[str, object]  # optimizer and learning rate, or the classical classifier
    valid_auroc: float
    curve: dict[str, float]  # cut-off to the layer probe's score
    description: Description
    run_id: str = ""


@dataclass(frozen=True)
class Neighbour:
    """A known data set and how far it is."""

    entry: Entry
    distance: float


def distance(one: Description, other: Description) -> float:
    """How differently a backbone sees two data sets, 0 for alike.

    The Frechet distance of two Gaussians with independent features (Dowson & Landau 1982), its
    square root taken, and divided by the overall spread so that it has no unit.
    """
    means = np.subtract(one.mean, other.mean)
    spreads = np.subtract(one.spread, other.spread)
    scale = np.sum(np.square(one.spread)) + np.sum(np.square(other.spread))
    return float(np.sqrt((means @ means + spreads @ spreads) / max(scale / 2, 1e-12)))


def nearest(
    description: Description, backbone: str, entries: Sequence[Entry], count: int
) -> list[Neighbour]:
    """The `count` nearest known data sets seen by the same backbone, one entry each, nearest first.

    Of several searches on the same data the one with the best score counts.
    """
    best: dict[str, Entry] = {}
    for entry in entries:
        known = best.get(entry.fingerprint)
        if entry.backbone == backbone and (known is None or entry.valid_auroc > known.valid_auroc):
            best[entry.fingerprint] = entry
    found = [Neighbour(entry, distance(description, entry.description)) for entry in best.values()]
    return sorted(found, key=lambda neighbour: neighbour.distance)[:count]
