"""Search spaces: the cut-off as a depth, optimizer and learning rate.

The cut-off is searched as an integer, its index in forward order, since neighbouring layers behave
alike. In the joint space of several networks the depth is a share of the cut-offs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import optuna

Param = str | int | float  # value of an Optuna or MLflow parameter


@dataclass(frozen=True)
class NetworkName:
    """Name of a network in a search, by what is searched of it.

    Attributes:
        architecture: '' if only one is searched.
        weights: name of its source of weights, '' if only one is searched.
    """

    architecture: str = ""
    weights: str = ""

    def params(self) -> dict[str, Param]:
        """Returns the MLflow parameters."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.architecture, self.weights)))


@dataclass(frozen=True)
class Candidate:
    """Training by gradient from a layer on."""

    optimizer: str
    lr: float
    cutoff: str  # name of a layer
    network: NetworkName = NetworkName()
    augment: str = ""  # name of the augmentation; '' if it is not searched

    def params(self) -> dict[str, Param]:
        """Returns the MLflow parameters."""
        own: dict[str, Param] = {"optimizer": self.optimizer, "lr": self.lr}
        searched: dict[str, Param] = {"augment": self.augment} if self.augment else {}
        return self.network.params() | own | searched | {"cutoff": self.cutoff}

    def __str__(self) -> str:
        of = f"{self.network}, " if str(self.network) else ""
        by = f", augmentation {self.augment}" if self.augment else ""
        return (
            f"{of}{self.optimizer}, learning rate {self.lr:.2g}{by}, trained from {self.cutoff} on"
        )


@dataclass(frozen=True)
class Space:
    """Optimizers, learning rates from `lr_low` to `lr_high` (log), cut-offs in forward order.

    `augments` are names of augmentations, the usual one first; none if they are not searched.
    """

    optimizers: tuple[str, ...]
    lr_low: float
    lr_high: float
    cutoffs: tuple[str, ...]
    augments: tuple[str, ...] = ()

    def distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Returns the Optuna distributions."""
        found: dict[str, optuna.distributions.BaseDistribution] = {
            "optimizer": optuna.distributions.CategoricalDistribution(self.optimizers),
            "lr": optuna.distributions.FloatDistribution(self.lr_low, self.lr_high, log=True),
            "depth": optuna.distributions.IntDistribution(0, len(self.cutoffs) - 1),
        }
        if self.augments:
            found["augment"] = optuna.distributions.CategoricalDistribution(self.augments)
        return found

    def candidate(self, params: Mapping[str, Param]) -> Candidate:
        """Returns the candidate of a trial's Optuna parameters."""
        return Candidate(
            str(params["optimizer"]),
            float(params["lr"]),
            self.cutoffs[int(params["depth"])],
            augment=str(params["augment"]) if self.augments else "",
        )

    def params(self, candidate: AnyCandidate) -> dict[str, Param]:
        """Returns the Optuna parameters.

        A learning rate outside the space is clipped; a candidate without an augmentation gets the
        usual one.
        """
        assert isinstance(candidate, Candidate)
        found: dict[str, Param] = {
            "optimizer": candidate.optimizer,
            "lr": min(max(candidate.lr, self.lr_low), self.lr_high),
            "depth": self.cutoffs.index(candidate.cutoff),
        }
        if self.augments:
            found["augment"] = candidate.augment or self.augments[0]
        return found


@dataclass(frozen=True)
class HybridCandidate:
    """A classical classifier on the features before a layer."""

    classifier: str
    cutoff: str
    network: NetworkName = NetworkName()

    def params(self) -> dict[str, Param]:
        """Returns the MLflow parameters."""
        own: dict[str, Param] = {"classifier": self.classifier, "cutoff": self.cutoff}
        return self.network.params() | own

    def __str__(self) -> str:
        of = f" of {self.network}" if str(self.network) else ""
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
OneSpace = Space | HybridSpace  # of one network


@dataclass(frozen=True)
class JointSpace:
    """Joint space of several networks, by name, which differ only in their cut-offs.

    The depth is the share of a network's cut-offs that come before the chosen one, so that the
    sampler learns about the depth from all networks together. The network is one parameter: not
    every architecture has every source of weights.
    """

    spaces: Mapping[NetworkName, OneSpace]

    @property
    def parameter(self) -> str:
        """Optuna parameter of the network: `architecture`, `weights`, or `network` for both."""
        searched = [name for name in ("architecture", "weights")
                    if any(getattr(each, name) for each in self.spaces)]  # fmt: skip
        return searched[0] if len(searched) == 1 else "network"

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
            self.parameter: optuna.distributions.CategoricalDistribution(
                tuple(map(str, self.spaces))
            ),
            **shared,
            "depth": optuna.distributions.FloatDistribution(0.0, 1.0),
        }

    def candidate(self, params: Mapping[str, Param]) -> AnyCandidate:
        """Returns the candidate of a trial's Optuna parameters."""
        network = next(each for each in self.spaces if str(each) == params[self.parameter])
        space = self.spaces[network]
        last = len(space.cutoffs) - 1
        place = min(int(float(params["depth"]) * (last + 1)), last)
        alone = space.candidate({**params, "depth": place})
        return dataclasses.replace(alone, network=network)

    def params(self, candidate: AnyCandidate) -> dict[str, Param]:
        """Returns the Optuna parameters, with the depth in the middle of the cut-off's share."""
        space = self.spaces[candidate.network]
        own = space.params(candidate)
        depth = (int(own["depth"]) + 0.5) / len(space.cutoffs)
        return {self.parameter: str(candidate.network), **own, "depth": depth}


AnySpace = OneSpace | JointSpace
