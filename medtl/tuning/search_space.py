"""The search spaces: the cut-off as a depth, with optimizer and learning rate where one trains.

The cut-off is searched as an integer, its place in forward order: neighbouring layers are alike,
and the sampler may know it. Several architectures have a space together, in which the depth is a
share of the way through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import optuna


@dataclass(frozen=True)
class Candidate:
    """What is trained by gradient from a layer on."""

    optimizer: str
    lr: float
    cutoff: str  # a layer's name
    architecture: str = ""  # '' where only one is searched

    def params(self) -> dict[str, object]:
        """The candidate as MLflow parameters."""
        own = {"optimizer": self.optimizer, "lr": self.lr, "cutoff": self.cutoff}
        return _of_several(self.architecture) | own

    def __str__(self) -> str:
        of = f"{self.architecture}, " if self.architecture else ""
        return f"{of}{self.optimizer}, learning rate {self.lr:.2g}, trained from {self.cutoff} on"


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
    architecture: str = ""  # '' where only one is searched

    def params(self) -> dict[str, object]:
        """The candidate as MLflow parameters."""
        own = {"classifier": self.classifier, "cutoff": self.cutoff}
        return _of_several(self.architecture) | own

    def __str__(self) -> str:
        of = f" of {self.architecture}" if self.architecture else ""
        return f"{self.classifier} on the features before {self.cutoff}{of}"


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
OneSpace = Space | HybridSpace  # of one architecture


@dataclass(frozen=True)
class JointSpace:
    """Several architectures, by name, whose spaces differ in nothing but their cut-offs.

    The depth is searched as the share of an architecture's cut-offs that lie before the one that
    is meant: which layer that is depends on the architecture, and what is learned of the depth in
    one is known of the others.
    """

    spaces: Mapping[str, OneSpace]

    @property
    def cutoffs(self) -> tuple[str, ...]:
        """The names of all cut-offs, each once, by the share of its network that lies before."""
        before: dict[str, float] = {}
        for space in self.spaces.values():
            for place, name in enumerate(space.cutoffs):
                before.setdefault(name, place / len(space.cutoffs))
        return tuple(sorted(before, key=before.__getitem__))

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """The space as Optuna knows it."""
        shared = next(iter(self.spaces.values())).distributions()
        return {
            "architecture": optuna.distributions.CategoricalDistribution(tuple(self.spaces)),
            **shared,
            "depth": optuna.distributions.FloatDistribution(0.0, 1.0),
        }

    def candidate(self, params: dict[str, object]) -> AnyCandidate:
        """What a trial's Optuna parameters mean."""
        architecture = str(params["architecture"])
        space = self.spaces[architecture]
        last = len(space.cutoffs) - 1
        place = min(int(float(params["depth"]) * (last + 1)), last)
        alone = space.candidate({**params, "depth": place})
        return dataclasses.replace(alone, architecture=architecture)

    def params(self, candidate: AnyCandidate) -> dict[str, object]:
        """The Optuna parameters of a candidate, its depth in the middle of its cut-off's share."""
        space = self.spaces[candidate.architecture]
        own = space.params(candidate)
        depth = (int(own["depth"]) + 0.5) / len(space.cutoffs)
        return {"architecture": candidate.architecture, **own, "depth": depth}


AnySpace = OneSpace | JointSpace


def _of_several(architecture: str) -> dict[str, object]:
    return {"architecture": architecture} if architecture else {}
