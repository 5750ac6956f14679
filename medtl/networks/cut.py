"""Cutting a network in two at a layer: all before it is frozen, all from it on can be trained."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from medtl.errors import MedtlError
from medtl.networks.borders import Border, borders
from medtl.networks.cutpoints import CutPoint
from medtl.networks.graph import Graph, trace

_IMAGES = CutPoint("images", 0)


class Frozen(nn.Module):
    """A part of a network that is never trained.

    Its parameters ask for no gradient. It computes in eval mode, so that batch norm keeps its
    statistics and dropout stays off, also after `.train()` of this part or of the whole network.
    """

    def __init__(self, part: fx.GraphModule) -> None:
        super().__init__()
        self.part = part.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    @torch.no_grad()
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        self.part.eval()  # the layers are the network's own: its `.train()` reaches them too
        return self.part(*tensors)


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
    said. What crosses and does not depend on the images is kept inside the suffix, so weights are
    to be loaded before the cut.

    Raises:
        MedtlError: the network cannot be cut there; the message names both.
    """
    graph = trace(network)
    images, border = borders(graph, [_IMAGES, point], image_size)
    return cut_at(graph, images, border)


def cut_at(graph: Graph, images: Border, border: Border) -> Cut:
    """As `cut`, at a border that is known already; `images` is the border at position 0."""
    prefix = Frozen(_part(graph, images, border))
    suffix = _part(graph, border, None).requires_grad_(True)
    frozen = set(map(id, prefix.parameters()))
    for name, parameter in suffix.named_parameters():
        if id(parameter) in frozen:
            raise MedtlError(
                f"{type(graph.network).__name__} cannot be cut at {border.point.name}: "
                f"{name} is used on both sides"
            )
    return Cut(border.point, prefix, suffix, border.shapes)


def deepen(network: nn.Module, shallow: CutPoint, deep: CutPoint, image_size: int) -> Frozen:
    """The part between two cut points: from what crosses at `shallow` to what crosses at `deep`.

    `deepen(...)(*cut(network, shallow, ...).prefix(images))` is the prefix of the deeper cut.
    """
    return stages(network, [shallow, deep], image_size)[1]


def stages(network: nn.Module, points: Sequence[CutPoint], image_size: int) -> list[Frozen]:
    """The frozen parts that lead from the images to the first point, from it to the second, ...

    `points` are in forward order. Run one after the other, they give in one pass what crosses
    at each of the points. All parameters before the last point stop asking for a gradient.
    """
    graph = trace(network)
    known = borders(graph, [_IMAGES, *points], image_size)
    return [Frozen(_part(graph, start, stop)) for start, stop in pairwise(known)]


def _part(graph: Graph, start: Border, stop: Border | None) -> fx.GraphModule:
    """The operations from one border to the next, or to the scores when `stop` is None."""
    last = stop.point.position if stop else math.inf
    inside = {node for node, place in graph.places.items() if start.point.position <= place < last}
    part = fx.Graph()
    copied: dict[fx.Node, Argument] = {}
    given = [part.placeholder(node.name) for node in start.folds]
    for tensor, (node, fold) in zip(given, start.folds.items(), strict=True):
        copied[node] = part.call_method("flatten", (tensor, 0, 1)) if fold > 1 else tensor
    for node, multiple in start.sizes.items():
        if not inside.isdisjoint(node.users):
            batch = part.call_method("size", (given[0], 0))
            copied[node] = part.call_function(operator.mul, (batch, multiple))
    constants = {}
    for node, value in start.constants.items():
        copied[node] = value
        if isinstance(value, Tensor) and not inside.isdisjoint(node.users):
            constants[node.name] = value
            copied[node] = part.get_attr(node.name)

    for node in graph.nodes:
        if node in inside:
            copied[node] = part.node_copy(node, copied.__getitem__)
    if stop:
        crossing = stop.folds.items()
        part.output(tuple(_unfolded(part, copied[node], fold) for node, fold in crossing))
    return _module(graph, part, constants)


def _unfolded(part: fx.Graph, node: fx.Node, fold: int) -> fx.Node:
    return part.call_method("unflatten", (node, 0, (-1, fold))) if fold > 1 else node


def _module(graph: Graph, part: fx.Graph, constants: dict[str, Tensor]) -> fx.GraphModule:
    """The runnable part, on the network's own layers; constants stay out of its state dict."""
    paths = [node.target for node in part.nodes if node.op in ("get_attr", "call_module")]
    attributes = {path: graph.attribute(path) for path in paths if path not in constants}
    module = fx.GraphModule(attributes | constants, part)
    for name, value in constants.items():
        delattr(module, name)
        module.register_buffer(name, value, persistent=False)
    return module
