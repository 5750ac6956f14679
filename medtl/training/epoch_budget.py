"""Training budgets: epochs of a gradient training, by the cost of an epoch at its cut-off.

The frozen part is computed once, so an epoch from a late cut-off costs a fraction of an epoch of
the whole network. With a fixed number of epochs, late cut-offs would stop early, and comparisons
would favour early ones. Cheaper epochs are therefore more, but not in proportion: with 1/16 of the
operations, four times the epochs for a quarter of the compute.

A few dozen images give one or two steps an epoch, and so are trained for more epochs. The numbers
are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STEPS = 240  # of the optimizer, if all layers are trained
FEWEST, MOST_OF_ALL_LAYERS = 8, 40  # epochs, if all layers are trained
MOST = 100  # epochs from any cut-off
LEAST_STEPS = 120  # of the optimizer, beyond these limits of epochs if need be
LEAST_PATIENCE = 4  # epochs
FORMAT = 2  # of budgets and solved heads, in the keys of searches and cells, which it invalidates


@dataclass(frozen=True)
class Budget:
    """Length of a training.

    Attributes:
        epochs: the most that are trained; the learning-rate schedule ends with them.
        patience: epochs without a better validation AUROC before the training stops.
    """

    epochs: int
    patience: int

    @classmethod
    def of(cls, trained_share: float, steps: int) -> Budget:
        """Returns the budget of a cut-off.

        >>> Budget.of(trained_share=1.0, steps=24).epochs, Budget.of(0.25, steps=24).epochs
        (10, 20)

        Args:
            trained_share: operations of the trained part, as a share of the whole network's.
            steps: of the optimizer in an epoch.
        """
        least = LEAST_STEPS / steps
        whole = min(max(STEPS / steps, FEWEST), max(MOST_OF_ALL_LAYERS, least))
        epochs = min(round(whole / math.sqrt(trained_share)), max(MOST, round(least)))
        return cls(epochs, usual_patience(epochs))


def usual_patience(epochs: int) -> int:
    """Returns the default patience: a quarter of the epochs."""
    return max(LEAST_PATIENCE, round(epochs / 4))
