"""Cutting a network in two at a layer: all before it is frozen, all from it on can be trained."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from medtl.errors import MedtlError
from medtl.networks.borders import borders
from medtl.networks.cutpoints import CutPoint
from medtl.networks.graph import trace
from medtl.networks.inplace import without_copies
from medtl.networks.parts import part

_IMAGES = CutPoint("images", 0)


class Frozen(nn.Module):
    """A part of a network that is never trained.

    Its parameters ask for no gradient. It computes in eval mode, so that batch norm keeps its
    statistics and dropout stays off, also after `.train()` of this part or of the whole network.
    """

    def __init__(self, operations: fx.GraphModule) -> None:
        super().__init__()
        self.operations = operations.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    @torch.no_grad()
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        # The layers are the network's own: its `.train()` has reached them too.
        self.operations.eval()
        return self.operations(*tensors)


@dataclass(frozen=True)
class Cut:
    """A network cut at `point`: `suffix(*prefix(images))` are the scores of the whole.

    `prefix` maps images [B, 3, S, S] to the tuple of tensors that cross the cut, each with the
    batch as its first axis and then one of `shapes`. `suffix` maps them to scores [B, classes];
    its parameters are the network's own, under the network's own names.
    """

    point: CutPoint
    prefix: Frozen
    suffix: fx.GraphModule
    shapes: tuple[tuple[int, ...], ...]


def cut(network: nn.Module, point: CutPoint, image_size: int) -> Cut:
    """Cuts a network, for images of `image_size`, at one of its cut points.

    Both halves share the network's parameters: training the suffix trains the network. Those
    of the prefix no longer ask for a gradient, those of the suffix do, whatever earlier cuts
    said. What crosses and does not depend on the images is kept inside the suffix: load weights
    into the network, and move it to its device, before the cut.

    Raises:
        MedtlError: the network cannot be cut there; the message names both.
    """
    return cut_by_way_of([], network, point, image_size)[1]


def cut_by_way_of(
    stops: Sequence[CutPoint], network: nn.Module, point: CutPoint, image_size: int
) -> tuple[list[Frozen], Cut]:
    """`cut`, and before it its prefix in parts: to the first of the stops, and so on to `point`.

    The stops are in forward order and before `point`.

    Raises:
        MedtlError: as `cut`.
    """
    graph = trace(network)
    known = borders(graph, [_IMAGES, *stops, point], image_size)
    way = [Frozen(part(graph, start, stop)) for start, stop in pairwise(known)]
    images, *_, border = known
    prefix = Frozen(part(graph, images, border)) if stops else way[0]
    suffix = without_copies(part(graph, border, None)).requires_grad_(True)
    frozen = set(prefix.parameters())
    for name, parameter in suffix.named_parameters():
        if parameter in frozen:
            raise MedtlError(
                f"{type(network).__name__} cannot be cut at {point.name}: "
                f"{name} is used on both sides"
            )
    return way, Cut(point, prefix, suffix, border.shapes)


def stages(network: nn.Module, points: Sequence[CutPoint], image_size: int) -> list[Frozen]:
    """The frozen parts that lead from the images to the first point, from it to the second, ...

    `points` are in forward order. Run one after the other, they give in one pass what crosses
    at each of the points. They are copies, made for passes: later changes of the network do not
    reach them.
    """
    graph = trace(network)
    known = borders(graph, [_IMAGES, *points], image_size)
    return [Frozen(_folded(part(graph, start, stop))) for start, stop in pairwise(known)]


def _folded(operations: fx.GraphModule) -> fx.GraphModule:
    """A copy with each batch norm folded into the convolution before it, equal but for rounding."""
    operations = copy.deepcopy(operations).eval()
    calls = Counter(node.target for node in operations.graph.nodes if node.op == "call_module")
    if max(calls.values(), default=0) > 1:
        # a layer that runs twice may be followed by two different norms
        return operations
    return fuse(operations, inplace=True, no_trace=True)
