"""The cut from which a trained network is best explained."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn

from medtl.errors import MedtlError
from medtl.evaluation.places import as_map, places_a_side
from medtl.networks.cut import Cut, cut
from medtl.networks.cutpoints import CutPoint
from medtl.networks.graph import Graph, evaluating, trace

# Ours: a map with fewer places a side says too little about where.
LEAST_SIDE = 4


def explanation_cut(network: nn.Module, image_size: int) -> Cut:
    """The deepest cut that only a map of at least 4 x 4 places crosses, which the scores depend on.

    In convolutional networks that is what the last pooling takes, as in the Grad-CAM paper; where
    that is smaller, the output of the stage before. In a ViT it is the input of the last block:
    after its attention only the class token is read. Cutting changes which parameters of the
    network ask for a gradient.

    Raises:
        MedtlError: the network has no such map at this image size.
    """
    point = next(_lone_maps(network, image_size), None)
    if point is None:
        raise MedtlError(
            f"{type(network).__name__} has no map of {LEAST_SIDE} x {LEAST_SIDE} places at "
            f"image_size {image_size} to explain its scores with; use larger images"
        )
    return cut(network, point, image_size)


def _lone_maps(network: nn.Module, image_size: int) -> Iterator[CutPoint]:
    """The points that a map crosses and nothing else that depends on the image, deepest first."""
    graph = trace(network)
    values, gradients = _values_and_gradients(network, graph, image_size)
    images = graph.channels // 3
    last_use = {node: max(graph.places[user] for user in node.users) for node in values}
    for node in reversed(values):
        gradient = gradients[node]
        if len(gradient) > 1:  # the images of the case are folded into the batch
            gradient = gradient[None]
        if node.op == "placeholder" or places_a_side(gradient.shape[1:], images) < LEAST_SIDE:
            continue
        place = graph.places[node]
        crossing = [each for each, last in last_use.items() if graph.places[each] <= place < last]
        if crossing == [node] and as_map(gradient, images).any():
            yield CutPoint(f"operation {place + 1}", place + 1)


def _values_and_gradients(
    network: nn.Module, graph: Graph, image_size: int
) -> tuple[dict[fx.Node, Tensor], dict[fx.Node, Tensor]]:
    """The tensors that a random image becomes on its way to the scores, in forward order.

    With the gradient of the sum of the scores on each.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, graph.channels, image_size, image_size, generator=generator)
    images = images.to(next(network.parameters())).requires_grad_(True)
    recorder = _Recorder(network, graph=graph.nodes[0].graph)
    of_images = {graph.nodes[0]}
    for node in graph.nodes:
        if not of_images.isdisjoint(node.all_input_nodes) and node.users:
            of_images.add(node)
    with evaluating(network), torch.inference_mode(False), torch.enable_grad():
        scores = recorder.run(images)
        values = {
            node: value
            for node, value in recorder.values.items()
            if node in of_images and isinstance(value, Tensor) and value.requires_grad
        }
        gradients = torch.autograd.grad(
            scores.sum(), list(values.values()), allow_unused=True, materialize_grads=True
        )
    return values, dict(zip(values, gradients, strict=True))


class _Recorder(fx.Interpreter):
    """Runs a network operation by operation and keeps the value of each."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.values[n] = super().run_node(n)
        return self.values[n]
