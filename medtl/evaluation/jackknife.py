"""The jackknife over whole groups of cases: a metric without each of them in turn.

Groups are those that are drawn together: patients, or cases alike. With many groups, blocks of
several are left out (the delete-a-group jackknife: Kott 2001, Journal of Official Statistics
17:521), which costs a number of passes that does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.truth import has_findings

MOST_BLOCKS = 400
# Weights held at a time: under 1 MB, so that a chunk and its sums stay near the processor.
CHUNK_VALUES = 100_000


@dataclass(frozen=True)
class Blocks:
    """The block of each of N cases, `block` int [N] below `count`; groups are never divided."""

    block: np.ndarray
    count: int

    @classmethod
    def of(cls, groups: np.ndarray, seed: int) -> Blocks:
        """A block a group, `groups` any codes [N]; more than 400 are dealt to 400 at random."""
        _, codes = np.unique(groups, return_inverse=True)
        count = int(codes.max()) + 1
        if count <= MOST_BLOCKS:
            return cls(codes, count)
        dealt = np.random.default_rng(seed).permutation(count) % MOST_BLOCKS
        return cls(dealt[codes], MOST_BLOCKS)

    def among(self, inside: np.ndarray) -> Blocks:
        """The same blocks for some of the cases, `inside` bool [N]; some may have none of them."""
        return Blocks(self.block[inside], self.count)

    def without(self) -> Iterator[np.ndarray]:
        """Yields weights [j, N], `count` rows in all: 0 for the cases of a block, else 1."""
        rows = max(1, CHUNK_VALUES // len(self.block))
        for start in range(0, self.count, rows):
            left_out = np.arange(start, min(start + rows, self.count))
            yield (left_out[:, None] != self.block).astype(np.float64)

    def moves(self, values: np.ndarray) -> np.ndarray:
        """How far the metric moves with each block, [J], from its `values` [J] without each.

        The squares sum to the jackknife's variance (Efron & Stein 1981, Annals of Statistics
        9:586). NaN where the value is.
        """
        known = values[~np.isnan(values)]
        middle = known.mean() if len(known) else math.nan
        return math.sqrt((self.count - 1) / self.count) * (middle - values)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The rarest class, or finding, that the cases of each block have: int [J].

        `labels` as `medtl.evaluation.truth` has them. K where a block has no finding, -1 where it
        has no case.
        """
        labels = np.asarray(labels)
        classes = labels.shape[1] if has_findings(labels) else int(labels.max()) + 1
        there = np.zeros((self.count, classes), bool)
        if has_findings(labels):
            np.logical_or.at(there, self.block, labels == 1)
        else:
            there[self.block, labels] = True
        by_rarity = np.argsort(there.sum(axis=0), kind="stable")
        ordered = there[:, by_rarity]
        rarest = np.where(ordered.any(axis=1), by_rarity[ordered.argmax(axis=1)], classes)
        return np.where(np.bincount(self.block, minlength=self.count) > 0, rarest, -1)


@dataclass(frozen=True)
class ByStratum:
    """The degrees of freedom of a variance to which the strata contribute unequally.

    Satterthwaite 1946, Biometrics Bulletin 2:110: a few positive cases among many negative ones
    bring few. `strata` int [J].
    """

    strata: np.ndarray

    def __call__(self, moves: np.ndarray) -> float:
        """The degrees of freedom for `moves` [J]; infinite where nothing moves."""
        there = self.strata >= 0
        squares = np.square(np.nan_to_num(moves[there]))
        _, codes = np.unique(self.strata[there], return_inverse=True)
        sums, counts = np.bincount(codes, weights=squares), np.bincount(codes)
        whole = np.square(sums / np.maximum(counts - 1, 1) ** 0.5).sum()
        return max(1.0, float(sums.sum() ** 2 / whole)) if whole > 0 else math.inf


def by_tails(moves: np.ndarray) -> float:
    """The degrees of freedom of a variance of values with heavy tails, from their kurtosis.

    The variance of a variance is that of a chi-squared of so many degrees (Satterthwaite 1946).
    """
    moves = np.nan_to_num(moves)
    moves = moves[moves != 0]
    squares = np.square(moves)
    if len(moves) < 2:
        return math.inf
    kurtosis = len(moves) * np.square(squares).sum() / squares.sum() ** 2
    most = len(moves) - 1.0
    return max(1.0, min(most, 2 * len(moves) / (kurtosis - 1))) if kurtosis > 1 else most
