"""How well scores rank the cases of one class: its curves, and the areas under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """N cases sorted once by falling score, so that any weighting of them is a cumulative sum.

    `order` [N] are the cases by falling score and `positive` bool [N] says, in that order, which
    are positive. Cases of equal score stand or fall together: the groups of equal score begin at
    `starts` [G] and end before `stops` [G], places in that order.
    """

    order: np.ndarray
    positive: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, positive: np.ndarray, scores: np.ndarray) -> Ranking:
        """Sorts N cases: `positive` bool [N], `scores` [N], higher meaning more positive."""
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf) < 0)
        return cls(order, positive[order], starts, np.append(starts[1:], len(order)))

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives, each [G], with the threshold at the score of each group."""
        true = np.cumsum(self.positive)[self.stops - 1]
        return true, self.stops - true

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision, each [R].

        `weights` [R, N] says how often each case counts in each of R weightings. Ties count half
        in the first (the Mann-Whitney statistic). The second is the sum of precision over the
        gains in recall, without interpolation between points (Davis & Goadrich 2006). NaN where a
        weighting has no positives or, in the first, no negatives.
        """
        called = np.zeros((len(weights), len(self.order) + 1))
        np.cumsum(np.take(weights, self.order, axis=1), axis=1, out=called[:, 1:])
        total = called[:, -1]

        # Both areas grow only at the groups that hold a positive: nothing else is looked at.
        group = np.repeat(np.arange(len(self.starts)), self.stops - self.starts)
        groups, first = np.unique(group[self.positive], return_index=True)
        if len(groups) == 0:
            return np.full_like(total, np.nan), np.full_like(total, np.nan)
        before, after = called[:, self.starts[groups]], called[:, self.stops[groups]]
        gained = np.take(weights, self.order[self.positive], axis=1)
        if len(groups) < gained.shape[1]:
            gained = np.add.reduceat(gained, first, axis=1)
        true = np.cumsum(gained, axis=1)

        positives = true[:, -1]
        negatives = total - positives
        # A positive beats the negatives ranked below it, and half of those it is tied with.
        below = negatives[:, None] - (after - true)
        tied = (after - before) - gained
        roc = np.einsum("rg,rg->r", gained, below + tied / 2)
        precision = true / np.maximum(after, np.finfo(float).tiny)
        average = np.einsum("rg,rg->r", gained, precision)
        with np.errstate(divide="ignore", invalid="ignore"):
            return roc / (positives * negatives), average / positives
