"""`dual:ARCH+ARCH`: the last maps of two networks, joined before one dense head.

Trinh & Nguyen 2021, DenseNet-121 and ResNet-101 on eight classes of the gastrointestinal tract.
Known, from the authors' sibling code: each map through a 3x3 convolution to 1,024 channels, the two
added, global average pooling, dropout 0.2, a dense head. Ours: any two networks; where their maps
differ in size, both are averaged to the smaller; what joins them is a part of the head.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from medtl.networks.composed import SCOPE, Composed, put
from medtl.networks.graph import trace
from medtl.networks.maps import LastMap

PREFIX = "dual:"
HALVES = ("first", "second")
JOINED_WIDTH = 1024
DROPOUT = 0.2


def halves_of(architecture: str) -> dict[str, str]:
    """`first` and `second` with their architectures, of a name `dual:ARCH+ARCH`; else nothing."""
    names = architecture.removeprefix(PREFIX).split("+")
    if not architecture.startswith(PREFIX) or len(names) != len(HALVES):
        return {}
    return dict(zip(HALVES, names, strict=True))


class Dual(Composed):
    """Images [B, 3, S, S] to scores [B, classes] by two networks up to their last maps.

    The halves do not see each other before the head. In forward order their operations stand by
    depth, block i of the n blocks of a half at i / n: a cut freezes about as much of the one half
    as of the other. Layers keep their names, under `first`, `second` and `head`.

    Raises:
        ValueError: a network makes no map.
        RuntimeError: a network cannot take images of this size.
    """

    def __init__(
        self, networks: tuple[nn.Module, nn.Module], classes: int, image_size: int
    ) -> None:
        super().__init__()
        maps = {
            half: LastMap.of(network, image_size)
            for half, network in zip(HALVES, networks, strict=True)
        }
        for half, last in maps.items():
            self.add_module(half, last.holder())
        self.head = Joint(tuple(maps.values()), classes)
        self._compose(maps)

    def _compose(self, maps: dict[str, LastMap]) -> None:
        """Puts the operations of the halves and of the head into one graph."""
        images = self.operations.placeholder("images")
        images.meta[SCOPE] = ""
        done = {last.graph.nodes[0]: images for last in maps.values()}
        steps = [step for half, last in maps.items() for step in _steps(half, last)]
        for step in sorted(steps, key=lambda step: step.depth):
            done[step.node] = put(step.node, step.scope, self.operations, step.half, done)
        head = trace(self.head)
        places = (node for node in head.nodes if node.op == "placeholder")
        for place, last in zip(places, maps.values(), strict=True):
            done[place] = done[last.node]
        for node in head.nodes:
            if node not in done:
                done[node] = put(node, head.modules[node], self.operations, "head", done)
        begun = [
            (number / len(last.blocks), f"{half}.{name}")
            for half, last in maps.items()
            for number, name in enumerate(last.blocks)
        ]
        begun.sort(key=lambda block: block[0])
        self.blocks = (*(name for _, name in begun), "head")


class Joint(nn.Module):
    """Joins two maps [B, C, H, W], each of its own C and H = W, to scores [B, classes]."""

    def __init__(self, maps: tuple[LastMap, LastMap], classes: int) -> None:
        super().__init__()
        first, second = maps
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
        joined = self.resize(self.first(first)) + self.resize(self.second(second))
        return self.dense(self.dropout(torch.flatten(self.avgpool(joined), 1)))


@dataclass(frozen=True)
class _Step:
    """An operation of a half, the module it runs in, and how deep it stands: from 0 to 1."""

    half: str
    node: fx.Node
    scope: str
    depth: float


def _steps(half: str, last: LastMap) -> Iterator[_Step]:
    graph = last.graph
    begin = [graph.position(name) for name in last.blocks]
    for place, node in enumerate(last.nodes):
        block = max(0, bisect_right(begin, place) - 1)
        yield _Step(half, node, graph.modules[node], block / len(begin))
