"""Jackknife over groups of cases: a metric without each group in turn.

Groups are patients, or identical cases. With many groups, blocks of several are left out (the
delete-a-group jackknife: Kott 2001, Journal of Official Statistics 17:521), which bounds the number
of passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from medtl.evaluation.truth import has_findings

MOST_BLOCKS = 400
# Weights per chunk: under 1 MB, so that a chunk and its sums fit the CPU cache.
CHUNK_VALUES = 100_000


@dataclass(frozen=True)
class Blocks:
    """Blocks of N cases, `block` int [N] below `count`; groups are never divided."""

    block: np.ndarray
    count: int

    @classmethod
    def of(cls, groups: np.ndarray, seed: int) -> Blocks:
        """Assigns a block per group, `groups` any codes [N]; more than 400 share random blocks."""
        _, codes = np.unique(groups, return_inverse=True)
        count = int(codes.max()) + 1
        if count <= MOST_BLOCKS:
            return cls(codes, count)
        dealt = np.random.default_rng(seed).permutation(count) % MOST_BLOCKS
        return cls(dealt[codes], MOST_BLOCKS)

    def among(self, inside: np.ndarray) -> Blocks:
        """Returns the blocks restricted to the cases `inside` bool [N]; some may be empty."""
        return Blocks(self.block[inside], self.count)

    def without(self) -> Iterator[np.ndarray]:
        """Yields weights [j, N], `count` rows in total: 0 for the cases of a block, else 1."""
        rows = max(1, CHUNK_VALUES // len(self.block))
        for start in range(0, self.count, rows):
            left_out = np.arange(start, min(start + rows, self.count))
            yield (left_out[:, None] != self.block).astype(np.float64)

    def moves(self, values: np.ndarray) -> np.ndarray:
        """Scales the jackknife deviations [J] of a metric's `values` [J] without each block.

        The squares sum to the jackknife variance (Efron & Stein 1981, Annals of Statistics 9:586).
        NaN values give NaN.
        """
        known = values[~np.isnan(values)]
        middle = known.mean() if len(known) else math.nan
        return math.sqrt((self.count - 1) / self.count) * (middle - values)

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Returns the rarest class, or finding, among the cases of each block: int [J].

        `labels` as in `medtl.evaluation.truth`. K for a block without a finding, -1 for an empty
        block.
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
    """Degrees of freedom of a variance with unequal contributions of strata.

    Satterthwaite 1946, Biometrics Bulletin 2:110: few positive cases among many negative ones give
    few. `strata` int [J].
    """

    strata: np.ndarray

    def __call__(self, moves: np.ndarray) -> float:
        """Returns the degrees of freedom for `moves` [J]; infinite for zero variance."""
        there = self.strata >= 0
        squares = np.square(np.nan_to_num(moves[there]))
        _, codes = np.unique(self.strata[there], return_inverse=True)
        sums, counts = np.bincount(codes, weights=squares), np.bincount(codes)
        whole = np.square(sums / np.maximum(counts - 1, 1) ** 0.5).sum()
        return max(1.0, float(sums.sum() ** 2 / whole)) if whole > 0 else math.inf


def by_tails(moves: np.ndarray) -> float:
    """Returns the degrees of freedom of the variance of heavy-tailed values, from the kurtosis.

    Matches the variance of the variance to that of a chi-squared (Satterthwaite 1946).
    """
    moves = np.nan_to_num(moves)
    moves = moves[moves != 0]
    squares = np.square(moves)
    if len(moves) < 2:
        return math.inf
    kurtosis = len(moves) * np.square(squares).sum() / squares.sum() ** 2
    most = len(moves) - 1.0
    return max(1.0, min(most, 2 * len(moves) / (kurtosis - 1))) if kurtosis > 1 else most
