"""The search space: optimizer, learning rate, and the cut-off as a depth."""

from __future__ import annotations

from dataclasses import dataclass

import optuna


@dataclass(frozen=True)
class Candidate:
    """One point of the search space."""

    optimizer: str
    lr: float
    cutoff: str  # a layer's name

    def params(self) -> dict[str, object]:
        """The candidate as MLflow parameters."""
        return {"optimizer": self.optimizer, "lr": self.lr, "cutoff": self.cutoff}


@dataclass(frozen=True)
class Space:
    """Optimizers, learning rates from `lr_low` to `lr_high` (log), cut-offs in forward order.

    The cut-off is searched as an integer, its place in forward order: neighbouring layers are
    alike, and the sampler may know it.
    """

    optimizers: tuple[str, ...]
    lr_low: float
    lr_high: float
    cutoffs: tuple[str, ...]

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The space as Optuna knows it."""
        return {
            "optimizer": optuna.distributions.CategoricalDistribution(self.optimizers),
            "lr": optuna.distributions.FloatDistribution(self.lr_low, self.lr_high, log=True),
            "depth": optuna.distributions.IntDistribution(0, len(self.cutoffs) - 1),
        }

    def candidate(self, params: dict[str, object]) -> Candidate:
        """What a trial's Optuna parameters mean."""
        return Candidate(
            str(params["optimizer"]), float(params["lr"]), self.cutoffs[int(params["depth"])]
        )

    def params(self, candidate: Candidate) -> dict[str, object]:
        """The Optuna parameters of a candidate, its learning rate brought into the space."""
        return {
            "optimizer": candidate.optimizer,
            "lr": min(max(candidate.lr, self.lr_low), self.lr_high),
            "depth": self.cutoffs.index(candidate.cutoff),
        }
