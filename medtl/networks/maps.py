"""The last map [B, C, H, W] that a network makes of its images, before all is pooled."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from medtl.networks.blocks import block_names
from medtl.networks.graph import Graph, evaluating, is_within, trace

# At this size no architecture is down to one place a side before it pools.
_ROOMY = 224
_AFTERWARDS = (nn.AdaptiveAvgPool2d, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class LastMap:
    """Where the last map is in the `graph` of a network, at a place before the head.

    `channels` and `side` are C and H = W; `blocks` are the names of the blocks that lead to it.
    Swin's maps have the channels last inside, but torchvision permutes the last one itself.
    """

    graph: Graph
    node: fx.Node
    channels: int
    side: int
    blocks: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, image_size: int) -> LastMap:
        """The last map of a network, for images of this size.

        What a pooling to a fixed size or dropout makes of it is passed over.

        Raises:
            ValueError: the network makes no map.
            RuntimeError: it cannot take images of this size.
        """
        graph = trace(network)
        roomy = _shapes(graph, max(_ROOMY, image_size))
        blocks = block_names(graph)
        head = graph.position(blocks[-1])
        maps = [
            node
            for node, shape in roomy.items()
            if graph.places[node] < head
            and len(shape) == 4
            and shape[2] == shape[3] > 1
            and not _is_afterwards(graph, node)
        ]
        if not maps or maps[-1].op == "placeholder":
            raise ValueError("it makes no map")
        _, channels, side, _ = _shapes(graph, image_size)[maps[-1]]
        last = graph.places[maps[-1]]
        return cls(
            graph, maps[-1], channels, side, tuple(b for b in blocks if graph.position(b) <= last)
        )

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """The operations from the first on the images to the one that gives the map."""
        return self.graph.nodes[1 : self.graph.nodes.index(self.node) + 1]

    def holder(self) -> nn.Module:
        """A module that holds those children of the network that lead to the map."""
        holder = nn.Module()
        targets = [node.target for node in self.nodes if node.op in ("call_module", "get_attr")]
        for name, child in self.graph.network.named_children():
            if any(is_within(target, name) for target in targets):
                holder.add_module(name, child)
        return holder


def _is_afterwards(graph: Graph, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(graph.attribute(node.target), _AFTERWARDS)


def _shapes(graph: Graph, image_size: int) -> dict[fx.Node, torch.Size]:
    """The shapes of all tensors for one image of this size; nothing is computed."""
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
