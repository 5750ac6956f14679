"""`dual:ARCH+ARCH`: last feature maps of two networks, joined before one dense head.

After Trinh & Nguyen 2021, DenseNet-121 and ResNet-101 on eight classes of the gastrointestinal
tract, and related code of the authors: a 3x3 convolution of each map to 1,024 channels, their sum,
global average pooling, dropout 0.2, a dense head. Our choices: any two networks; maps of different
sizes are averaged to the smaller; the layers that join the maps belong to the head.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from medtl.errors import ParameterError
from medtl.networks.graph import (
    SCOPE,
    Composed,
    Graph,
    block_names,
    evaluating,
    is_within,
    path_of,
    put,
    trace,
)
from medtl.networks.registry import (
    Architecture,
    joinable_names,
    nearest,
    part,
    register_family,
)

# At this size no architecture is down to one place a side before it pools.
_ROOMY = 224
_AFTERWARDS = (nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d)


class NoMapError(ValueError):
    """A network has no feature map before its head."""


@dataclass(frozen=True)
class LastMap:
    """Last feature map [B, C, H, W] before the head of a network.

    Attributes:
        graph: operations of the network.
        node: the operation that gives the map.
        channels: C.
        side: H = W.
        blocks: names of the blocks that lead to it.
    """

    graph: Graph
    node: fx.Node
    channels: int
    side: int
    blocks: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, image_size: int) -> LastMap:
        """Finds the last map of a network, for images of this size.

        Maps behind a pooling to a fixed size or dropout do not count.

        Raises:
            NoMapError: the network makes no map.
            RuntimeError: it cannot take images of this size.
        """
        graph = trace(network)
        roomy = _shapes(graph, max(_ROOMY, image_size))
        blocks = block_names(graph)
        head = graph.start(blocks[-1])
        deepest = [each for each in blocks[:-1] if _has_children(graph.attribute(each))][-1:]
        begin = max(map(graph.start, deepest), default=0)  # maps before the last block are no last
        maps = [
            node
            for node, shape in roomy.items()
            if begin <= graph.places[node] < head
            and len(shape) == 4
            and shape[2] == shape[3] > 1
            and not _is_afterwards(graph, node)
            and _is_passed_by_all(graph, node, roomy)
        ]
        if not maps or maps[-1].op == "placeholder":
            raise NoMapError("it makes no map")
        _, channels, side, _ = _shapes(graph, image_size)[maps[-1]]
        last = graph.places[maps[-1]]
        return cls(
            graph, maps[-1], channels, side, tuple(b for b in blocks if graph.start(b) <= last)
        )

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """Operations from the first on the images to the one that gives the map."""
        return self.graph.nodes[1 : self.graph.nodes.index(self.node) + 1]

    def holder(self) -> nn.Module:
        """Returns a module that holds those children of the network that lead to the map."""
        holder = nn.Module()
        targets = [path_of(node) for node in self.nodes if node.op in ("call_module", "get_attr")]
        for name, child in self.graph.network.named_children():
            if any(is_within(target, name) for target in targets):
                holder.add_module(name, child)
        return holder


def _has_children(module: object) -> bool:
    return isinstance(module, nn.Module) and any(module.children())


def _is_passed_by_all(graph: Graph, node: fx.Node, tensors: Collection[fx.Node]) -> bool:
    """Returns whether the scores depend on the images through this tensor alone."""
    place = graph.places[node]
    before = {each for each in tensors if graph.places[each] <= place and each.op != "get_attr"}
    return all(each is node or before.issuperset(_tensors_of(each, tensors)) for each in before)


def _tensors_of(node: fx.Node, tensors: Collection[fx.Node]) -> list[fx.Node]:
    """Returns the operations on a tensor that give tensors, or the scores."""
    return [user for user in node.users if user in tensors or user.op == "output"]


def _is_afterwards(graph: Graph, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(graph.attribute(path_of(node)), _AFTERWARDS)


def _shapes(graph: Graph, image_size: int) -> dict[fx.Node, torch.Size]:
    """Returns the shapes of all tensors for one image of this size; computes no values."""
    network = copy.deepcopy(graph.network).to("meta")
    recorder = _Recorder(network, graph=graph.nodes[0].graph)
    with evaluating(network), torch.no_grad():
        recorder.run(torch.zeros(1, 3, image_size, image_size, device="meta"))
    return recorder.shapes


class _Recorder(fx.Interpreter):
    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.shapes[n] = value.shape
        return value


PREFIX = "dual"
HALVES = ("first", "second")
JOINED_WIDTH = 1024
DROPOUT = 0.2


class Dual(Composed):
    """Images [B, 3, S, S] to scores [B, classes] by two networks up to their last maps.

    The halves do not depend on each other before the head. Operations are ordered by depth, block i
    of the n blocks of a half at i / n: a cut freezes about equal shares of both halves. Layers keep
    their names, under `first`, `second` and `head`.

    Raises:
        NoMapError: a network makes no map.
        RuntimeError: a network cannot take images of this size.
    """

    def __init__(
        self, networks: tuple[nn.Module, nn.Module], classes: int, image_size: int
    ) -> None:
        super().__init__()
        self.branches = HALVES
        maps = {
            half: LastMap.of(network, image_size)
            for half, network in zip(HALVES, networks, strict=True)
        }
        for half, last in maps.items():
            self.add_module(half, last.holder())
        first, second = maps.values()
        self.head = Joint(first, second, classes)
        self._compose(maps)

    def _compose(self, maps: dict[str, LastMap]) -> None:
        """Joins the operations of the halves and of the head in one graph."""
        images = self.operations.placeholder("images")
        images.meta[SCOPE] = ""
        # of each half for itself: halves of equal structure have their trace in common
        done = {half: {last.graph.nodes[0]: images} for half, last in maps.items()}
        steps = [step for half, last in maps.items() for step in _steps(half, last)]
        for step in sorted(steps, key=lambda step: step.depth):
            own = done[step.half]
            own[step.node] = put(step.node, step.scope, self.operations, step.half, own)
        head = trace(self.head)
        places = (node for node in head.nodes if node.op == "placeholder")
        joined = {
            place: done[half][last.node]
            for place, (half, last) in zip(places, maps.items(), strict=True)
        }
        for node in head.nodes:
            if node not in joined:
                joined[node] = put(node, head.modules[node], self.operations, "head", joined)
        begun = [
            (number / len(last.blocks), f"{half}.{name}")
            for half, last in maps.items()
            for number, name in enumerate(last.blocks)
        ]
        begun.sort(key=lambda block: block[0])
        self.blocks = (*(name for _, name in begun), "head")


class Joint(nn.Module):
    """Two maps [B, C, H, W], each of its own C and H = W, to scores [B, classes]."""

    def __init__(self, first: LastMap, second: LastMap, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(first.channels, JOINED_WIDTH, kernel_size=3, padding=1)
        self.second = nn.Conv2d(second.channels, JOINED_WIDTH, kernel_size=3, padding=1)
        self.resize = (
            nn.Identity()
            if first.side == second.side
            else nn.AdaptiveAvgPool2d(min(first.side, second.side))
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(DROPOUT)
        self.dense = nn.Linear(JOINED_WIDTH, classes)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Adds the maps and computes scores [B, classes]."""
        joined = self.resize(self.first(first)) + self.resize(self.second(second))
        return self.dense(self.dropout(torch.flatten(self.avgpool(joined), 1)))


@dataclass(frozen=True)
class _Step:
    """An operation of a half, the module it runs in, and its depth in the half from 0 to 1."""

    half: str
    node: fx.Node
    scope: str
    depth: float


def _steps(half: str, last: LastMap) -> Iterator[_Step]:
    graph = last.graph
    begin = [graph.start(name) for name in last.blocks]
    for place, node in enumerate(last.nodes):
        block = max(0, bisect_right(begin, place) - 1)
        yield _Step(half, node, graph.modules[node], block / len(begin))


@register_family(PREFIX, f"{PREFIX}:ARCH+ARCH")
def dual(rest: str) -> Architecture:
    """Returns the architecture `dual:ARCH+ARCH` of `rest`, ARCH+ARCH.

    Raises:
        ParameterError: `rest` is not of this form, or one of the two makes no maps.
    """
    name = f"{PREFIX}:{rest}"
    halves = rest.split("+")
    if len(halves) != len(HALVES):
        allowed = f"give {PREFIX}:ARCH+ARCH, two architectures that make maps"
        raise ParameterError("architecture", name, allowed)
    if not all(map(_makes_maps, halves)):
        known = joinable_names()
        near = "+".join(each if _makes_maps(each) else nearest(each, known)[0] for each in halves)
        allowed = f"two that make maps, the nearest is {PREFIX}:{near}"
        raise ParameterError("architecture", name, allowed)

    def make(classes: int, side: int, modalities: int) -> nn.Module:
        first, second = (part(half).make(1, side, 1) for half in halves)
        try:
            return Dual((first, second), classes, side)
        except NoMapError as error:
            raise ParameterError("architecture", name, "two that make maps") from error

    parts = dict(zip(HALVES, halves, strict=True))
    return Architecture(name, make, makes_maps=False, parts=parts)


def _makes_maps(name: str) -> bool:
    try:
        return part(name).makes_maps
    except ParameterError:
        return False
