"""The search spaces: the cut-off as a depth, with optimizer and learning rate where one trains.

The cut-off is searched as an integer, its place in forward order: neighbouring layers are alike,
and the sampler may know it.
"""

from __future__ import annotations

from dataclasses import dataclass

import optuna


@dataclass(frozen=True)
class Candidate:
    """What is trained by gradient from a layer on."""

    optimizer: str
    lr: float
    cutoff: str  # a layer's name

    def params(self) -> dict[str, object]:
        """The candidate as MLflow parameters."""
        return {"optimizer": self.optimizer, "lr": self.lr, "cutoff": self.cutoff}

    def __str__(self) -> str:
        return f"{self.optimizer}, learning rate {self.lr:.2g}, trained from {self.cutoff} on"


@dataclass(frozen=True)
class Space:
    """Optimizers, learning rates from `lr_low` to `lr_high` (log), cut-offs in forward order."""

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


@dataclass(frozen=True)
class HybridCandidate:
    """A classical classifier on the features before a layer."""

    classifier: str
    cutoff: str

    def params(self) -> dict[str, object]:
        """The candidate as MLflow parameters."""
        return {"classifier": self.classifier, "cutoff": self.cutoff}

    def __str__(self) -> str:
        return f"{self.classifier} on the features before {self.cutoff}"


@dataclass(frozen=True)
class HybridSpace:
    """One classical classifier at every cut-off, in forward order."""

    classifier: str
    cutoffs: tuple[str, ...]

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The space as Optuna knows it."""
        return {"depth": optuna.distributions.IntDistribution(0, len(self.cutoffs) - 1)}

    def candidate(self, params: dict[str, object]) -> HybridCandidate:
        """What a trial's Optuna parameters mean."""
        return HybridCandidate(self.classifier, self.cutoffs[int(params["depth"])])

    def params(self, candidate: HybridCandidate) -> dict[str, object]:
        """The Optuna parameters of a candidate."""
        return {"depth": self.cutoffs.index(candidate.cutoff)}


AnyCandidate = Candidate | HybridCandidate
AnySpace = Space | HybridSpace
