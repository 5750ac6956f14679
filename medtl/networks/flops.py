"""What a cut costs: parameters and floating-point operations on each side of every cut point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.graph import Graph, evaluating, trace


@dataclass(frozen=True)
class CutCost:
    """Parameters, and operations for one image in the forward pass, before and from a cut on.

    One multiplication and one addition count as two operations. Only convolutions, matrix products
    and attention are counted, as PyTorch does.
    """

    point: CutPoint
    frozen_parameters: int
    trained_parameters: int
    frozen_flops: int
    trained_flops: int

    @property
    def trained_share(self) -> float:
        """The share of the forward pass, 0 to 1, that each training step must still compute."""
        return self.trained_flops / (self.frozen_flops + self.trained_flops)


def cut_costs(
    network: nn.Module, kind: Literal["blocks", "layers"], image_size: int
) -> list[CutCost]:
    """The cost of each of the network's cut points, for images of `image_size` pixels a side.

    Runs the network once, on one image.
    """
    graph = trace(network)
    counter = _Counter(graph)
    # Asking for gradients keeps attention off a fused kernel whose operations are not counted.
    images = torch.zeros(1, graph.channels, image_size, image_size, requires_grad=True)
    with evaluating(network):
        counter.run(images.to(next(network.parameters()).device))
    return [_cost(graph, counter.flops, point) for point in cut_points(network, kind)]


def operations(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> int:
    """Floating-point operations, counted as for `CutCost`, of a module for one image.

    `shapes` are those of the tensors that it takes, without the batch.
    """
    device = next(module.parameters()).device
    tensors = [torch.zeros(1, *shape, device=device, requires_grad=True) for shape in shapes]
    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(*tensors)
    return counter.get_total_flops()


def _cost(graph: Graph, flops: dict[fx.Node, int], point: CutPoint) -> CutCost:
    frozen = {node for node, place in graph.places.items() if point.freezes(place)}
    frozen_flops = sum(count for node, count in flops.items() if node in frozen)
    frozen_parameters = sum(
        parameter.numel()
        for parameter in {
            parameter
            for node in frozen
            if node.op in ("call_module", "get_attr")
            for parameter in _parameters(graph.attribute(node.target))
        }
    )
    all_parameters = sum(parameter.numel() for parameter in graph.network.parameters())
    return CutCost(
        point=point,
        frozen_parameters=frozen_parameters,
        trained_parameters=all_parameters - frozen_parameters,
        frozen_flops=frozen_flops,
        trained_flops=sum(flops.values()) - frozen_flops,
    )


def _parameters(layer: object) -> list[nn.Parameter]:
    """The parameters that an operation on this module, parameter or buffer reads."""
    if isinstance(layer, nn.Module):
        return list(layer.parameters())
    return [layer] if isinstance(layer, nn.Parameter) else []


class _Counter(fx.Interpreter):
    """Runs a network operation by operation and notes what each of them costs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.network, graph=graph.nodes[0].graph)
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        with FlopCounterMode(display=False) as mode:
            value = super().run_node(n)
        self.flops[n] = mode.get_total_flops()
        return value
