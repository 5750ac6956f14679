"""Costs of a cut: parameters and floating-point operations on each side of every cut point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.graph import Graph, evaluating, path_of, trace


@dataclass(frozen=True)
class CutCost:
    """Parameters, and operations for one image in the forward pass, before and after a cut.

    A multiplication and an addition count as two operations. Only convolutions, matrix products
    and attention are counted, as PyTorch does.
    """

    point: CutPoint
    frozen_parameters: int
    trained_parameters: int
    frozen_flops: int
    trained_flops: int

    @property
    def trained_share(self) -> float:
        """Share of the forward pass, 0 to 1, that each training step still computes."""
        return self.trained_flops / (self.frozen_flops + self.trained_flops)


def cut_costs(
    network: nn.Module, kind: Literal["blocks", "layers"], image_size: int
) -> list[CutCost]:
    """Returns the cost of each cut point, for images of `image_size` pixels a side.

    Runs the network on one image, once for all networks of its structure.
    """
    graph = trace(network)
    flops = graph.once(("flops", image_size), lambda: _flops(graph, image_size))
    read = {
        node: _parameters(graph.attribute(path_of(node)))
        for node in graph.nodes
        if node.op in ("call_module", "get_attr")
    }
    return [_cost(graph, flops, read, point) for point in cut_points(network, kind)]


def _flops(graph: Graph, image_size: int) -> dict[fx.Node, int]:
    counter = _Counter(graph)
    # with gradients, attention does not take a fused kernel whose operations are not counted
    images = torch.zeros(1, graph.channels, image_size, image_size, requires_grad=True)
    with evaluating(graph.network):
        counter.run(images.to(next(graph.network.parameters()).device))
    return counter.flops


def operations(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> int:
    """Counts the floating-point operations of a module for one image, as in `CutCost`.

    `shapes` are those of its input tensors, without the batch.
    """
    device = next(module.parameters()).device
    tensors = [torch.zeros(1, *shape, device=device, requires_grad=True) for shape in shapes]
    with evaluating(module), flop_counter() as counter:
        module(*tensors)
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """Returns a counter that knows the fused attention of processors, as PyTorch 2.11 does not."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    missing = {} if attention in flop_registry else {attention: _attention_flops}
    return FlopCounterMode(display=False, custom_mapping=missing)


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    """Returns the operations of attention from the shapes of its inputs."""
    return sdpa_flop_count(query, key, value)


def _cost(
    graph: Graph,
    flops: dict[fx.Node, int],
    read: dict[fx.Node, list[nn.Parameter]],
    point: CutPoint,
) -> CutCost:
    frozen = {node for node, place in graph.places.items() if point.freezes(place)}
    frozen_flops = sum(count for node, count in flops.items() if node in frozen)
    frozen_parameters = sum(
        parameter.numel() for parameter in {each for node in frozen for each in read.get(node, ())}
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
    """Returns the parameters that an operation on this module, parameter or buffer reads."""
    if isinstance(layer, nn.Module):
        return list(layer.parameters())
    return [layer] if isinstance(layer, nn.Parameter) else []


class _Counter(fx.Interpreter):
    """Runs a network operation by operation and counts the FLOPs of each."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.network, graph=graph.nodes[0].graph)
        self.flops: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> object:
        """Runs an operation and counts its FLOPs."""
        with flop_counter() as mode:
            value = super().run_node(n)
        self.flops[n] = mode.get_total_flops()
        return value
