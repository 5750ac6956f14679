"""Ensemble of networks with one frozen part, which runs once for all of them.

Its scores are the mean of its members' logits. So `softmax(mean / T)` is the normalised geometric
mean of the members' calibrated probabilities, and linear members on equal features are one linear
layer with the mean of their weights.

Deep ensembles: Lakshminarayanan, Pritzel & Blundell 2017, "Simple and scalable predictive
uncertainty estimation using deep ensembles", arXiv 1612.01474, which averages probabilities.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, fx, nn

from medtl.networks.cutoffs import CutPoint
from medtl.networks.partition import Cut, cut

_OWN = re.compile(r"member_(\d+)\.(.+)")  # stored name of a tensor of a member after the first


class Ensemble(nn.Module):
    """K networks of one structure, equal before `point`: images [B, 3, S, S] to scores [B, C].

    Attributes:
        members: whole networks in eval mode; they share the memory of all tensors before `point`.
        point: the cut after which they differ; at the cut `all` they share nothing.
        image_size: side S of the images.
    """

    def __init__(self, members: Sequence[nn.Module], point: CutPoint, image_size: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.point = point
        self.image_size = image_size

    @classmethod
    def of(cls, cuts: Sequence[Cut], networks: Sequence[nn.Module], image_size: int) -> Ensemble:
        """Builds the ensemble of networks that were trained from one cut on.

        The first network is used as it is; of the others only the tensors behind the cut.

        Args:
            cuts: of each network, all at the same point.
            networks: K networks of one structure, at least two.
            image_size: side of the images.

        Raises:
            ValueError: the cuts are at different points, or the tensors before them differ.
        """
        point = cuts[0].point
        frozen = cuts[0].prefix.state_dict()
        for each in cuts[1:]:
            same = each.prefix.state_dict()
            if each.point.key != point.key or any(
                not torch.equal(value, same[name]) for name, value in frozen.items()
            ):
                raise ValueError(f"the networks differ before the cut {point.name}")
        own = [each.suffix.state_dict() for each in cuts[1:]]
        members = [networks[0], *(_with_own(networks[0], state) for state in own)]
        return cls(members, point, image_size).eval()

    @classmethod
    def of_state(
        cls, network: nn.Module, point: CutPoint, image_size: int, state: Mapping[str, Tensor]
    ) -> Ensemble:
        """Rebuilds the ensemble from `stored_state`; `network` becomes its first member.

        Raises:
            ValueError, RuntimeError: the tensors do not fit.
        """
        first = {name: value for name, value in state.items() if not _OWN.fullmatch(name)}
        network.load_state_dict(first)
        own: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if found := _OWN.fullmatch(name):
                own.setdefault(int(found[1]), {})[found[2]] = value
        expected = set(cut(network, point, image_size).suffix.state_dict())
        for number, each in own.items():
            if set(each) != expected:
                raise ValueError(f"member {number} has not the tensors from {point.name} on")
        members = [network, *(_with_own(network, own[number]) for number in sorted(own))]
        return cls(members, point, image_size).eval()

    @property
    def shares_layers(self) -> bool:
        """True if a layer is before the cut."""
        return self.point.key != (0,)

    @cached_property
    def cuts(self) -> list[Cut]:
        """Each member cut at `point`; cached: move the ensemble to its device before."""
        return [cut(each, self.point, self.image_size) for each in self.members]

    @property
    def suffixes(self) -> list[fx.GraphModule]:
        """Parts of the members behind the cut."""
        return [each.suffix for each in self.cuts]

    def forward(self, images: Tensor) -> Tensor:
        """Computes scores [B, C] of images, with one pass through the common part.

        Differentiable by the images.
        """
        crossing = self.cuts[0].prefix.operations(images)
        return torch.stack(member_scores(self.suffixes, crossing)).mean(dim=0)


def member_scores(suffixes: Sequence[nn.Module], crossing: Sequence[Tensor]) -> list[Tensor]:
    """Computes the scores [B, C] of each suffix from the tensors that cross its cut.

    The tensors are copied for each, since a suffix may begin with an operation in place.
    """
    return [suffix(*(tensor.clone() for tensor in crossing)) for suffix in suffixes]


def members_of(network: nn.Module) -> list[nn.Module]:
    """Returns the members of an ensemble; of any other network the network itself."""
    return list(network.members) if isinstance(network, Ensemble) else [network]


def stored_state(network: nn.Module) -> dict[str, Tensor]:
    """Returns the tensors of a network by name; of an ensemble those in common once.

    The first member has its own names, the others `member_K.NAME` (K from 2).
    """
    if not isinstance(network, Ensemble):
        return network.state_dict()
    state = dict(network.members[0].state_dict())
    for number, suffix in enumerate(network.suffixes[1:], start=2):
        state |= {f"member_{number}.{name}": each for name, each in suffix.state_dict().items()}
    return state


def is_ensemble_state(state: Mapping[str, Tensor]) -> bool:
    """Returns whether `stored_state` of an ensemble has these names."""
    return any(_OWN.fullmatch(name) for name in state)


def with_mean_suffix(network: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """Returns a network with the mean of the tensors behind the cuts; it shares all others.

    Where the suffix of each cut is one linear layer, its scores are the mean of theirs.
    """
    states = [each.suffix.state_dict() for each in cuts]
    mean = {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(value.dtype)
        for name, value in states[0].items()
    }
    return _with_own(network, mean).eval()


def _with_own(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Returns a network with the tensors of `state`, which shares all others with `network`."""
    tensors = chain(network.parameters(), network.buffers())
    member = copy.deepcopy(network, {id(each): each for each in tensors})
    _, unexpected = member.load_state_dict(dict(state), strict=False, assign=True)
    if unexpected:
        raise ValueError(f"the network has no {unexpected[0]}")
    return member
