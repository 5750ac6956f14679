"""Search spaces: the cut-off as a depth, optimizer and learning rate.

The cut-off is searched as an integer, its index in forward order, since neighbouring layers behave
alike. In the joint space of several architectures the depth is a share of the cut-offs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import optuna

Param = str | int | float  # value of an Optuna or MLflow parameter


@dataclass(frozen=True)
class Candidate:
    """Training by gradient from a layer on."""

    optimizer: str
    lr: float
    cutoff: str  # name of a layer
    architecture: str = ""  # '' if only one is searched

    def params(self) -> dict[str, Param]:
        """Returns the MLflow parameters."""
        own: dict[str, Param] = {"optimizer": self.optimizer, "lr": self.lr, "cutoff": self.cutoff}
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
        """Returns the Optuna distributions."""
        return {
            "optimizer": optuna.distributions.CategoricalDistribution(self.optimizers),
            "lr": optuna.distributions.FloatDistribution(self.lr_low, self.lr_high, log=True),
            "depth": optuna.distributions.IntDistribution(0, len(self.cutoffs) - 1),
        }

    def candidate(self, params: Mapping[str, Param]) -> Candidate:
        """Returns the candidate of a trial's Optuna parameters."""
        return Candidate(
            str(params["optimizer"]), float(params["lr"]), self.cutoffs[int(params["depth"])]
        )

    def params(self, candidate: AnyCandidate) -> dict[str, Param]:
        """Returns the Optuna parameters; a learning rate outside the space is clipped."""
        assert isinstance(candidate, Candidate)
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
    architecture: str = ""  # '' if only one is searched

    def params(self) -> dict[str, Param]:
        """Returns the MLflow parameters."""
        own: dict[str, Param] = {"classifier": self.classifier, "cutoff": self.cutoff}
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
        """Returns the Optuna distributions."""
        return {"depth": optuna.distributions.IntDistribution(0, len(self.cutoffs) - 1)}

    def candidate(self, params: Mapping[str, Param]) -> HybridCandidate:
        """Returns the candidate of a trial's Optuna parameters."""
        return HybridCandidate(self.classifier, self.cutoffs[int(params["depth"])])

    def params(self, candidate: AnyCandidate) -> dict[str, Param]:
        """Returns the Optuna parameters."""
        return {"depth": self.cutoffs.index(candidate.cutoff)}


AnyCandidate = Candidate | HybridCandidate
OneSpace = Space | HybridSpace  # of one architecture


@dataclass(frozen=True)
class JointSpace:
    """Joint space of several architectures, by name, which differ only in their cut-offs.

    The depth is the share of an architecture's cut-offs that come before the chosen one, so that
    the sampler learns about the depth from all architectures together.
    """

    spaces: Mapping[str, OneSpace]

    @property
    def cutoffs(self) -> tuple[str, ...]:
        """Names of all cut-offs, each once, in the order of their depth."""
        before: dict[str, float] = {}
        for space in self.spaces.values():
            for place, name in enumerate(space.cutoffs):
                before.setdefault(name, place / len(space.cutoffs))
        return tuple(sorted(before, key=before.__getitem__))

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Returns the Optuna distributions."""
        shared = next(iter(self.spaces.values())).distributions()
        return {
            "architecture": optuna.distributions.CategoricalDistribution(tuple(self.spaces)),
            **shared,
            "depth": optuna.distributions.FloatDistribution(0.0, 1.0),
        }

    def candidate(self, params: Mapping[str, Param]) -> AnyCandidate:
        """Returns the candidate of a trial's Optuna parameters."""
        architecture = str(params["architecture"])
        space = self.spaces[architecture]
        last = len(space.cutoffs) - 1
        place = min(int(float(params["depth"]) * (last + 1)), last)
        alone = space.candidate({**params, "depth": place})
        return dataclasses.replace(alone, architecture=architecture)

    def params(self, candidate: AnyCandidate) -> dict[str, Param]:
        """Returns the Optuna parameters, with the depth in the middle of the cut-off's share."""
        space = self.spaces[candidate.architecture]
        own = space.params(candidate)
        depth = (int(own["depth"]) + 0.5) / len(space.cutoffs)
        return {"architecture": candidate.architecture, **own, "depth": depth}


AnySpace = OneSpace | JointSpace


def _of_several(architecture: str) -> dict[str, Param]:
    return {"architecture": architecture} if architecture else {}
