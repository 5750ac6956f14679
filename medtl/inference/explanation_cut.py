"""Cut of a network at the maps that its heat maps are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, fx, nn

from medtl.errors import MedtlError
from medtl.inference.image_maps import alignments, as_map, places_a_side
from medtl.networks.cutoffs import CutPoint
from medtl.networks.ensemble import Ensemble, members_of
from medtl.networks.graph import Graph, evaluating, trace
from medtl.networks.partition import Cut, Frozen, cut, cut_by_way_of

LEAST_SIDE = 4  # places; a smaller map is too coarse (our choice)
MOST_MAPS = 4  # at a cut, one for each branch of the network
LEAST_ALIGNMENT = 0.55  # between that of maps out of order (below 0.4) and in order (0.7 or more)


@dataclass(frozen=True)
class Explained:
    """Network, or each member of an ensemble, cut at the maps of its heat maps.

    Attributes:
        common: from the images to where the members differ, at most to the cut.
        ways: of each member, from there to the cut.
        cuts: each member cut at the maps.
    """

    common: Frozen
    ways: tuple[Frozen, ...]
    cuts: tuple[Cut, ...]

    def crossings(self, images: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yields the tensors that cross the cut of each member; the common part runs once."""
        common = self.common(images)
        for way in self.ways:
            # copied, since a way may begin with an operation in place
            yield way(*(tensor.clone() for tensor in common))


def explained(network: nn.Module, image_size: int) -> Explained:
    """Cuts a network, or each member of an ensemble, at the maps that `explanation_cut` finds.

    Raises:
        MedtlError: as `explanation_cut`.
    """
    first, *_ = members_of(network)
    return explained_at(network, explanation_cut(first, image_size).point, image_size)


def explained_at(network: nn.Module, point: CutPoint, image_size: int) -> Explained:
    """Cuts a network, or each member of an ensemble, at a point."""
    stop = point
    if isinstance(network, Ensemble) and network.point.position < point.position:
        # without what a cut in two branches freezes beyond: that is left to the members
        stop = CutPoint(network.point.name, network.point.position)
    found = [cut_by_way_of([stop], each, point, image_size) for each in members_of(network)]
    ways = tuple(way[1] for way, _ in found)
    return Explained(found[0][0][0], ways, tuple(halves for _, halves in found))


def explanation_cut(network: nn.Module, image_size: int) -> Cut:
    """Cuts a network at its deepest map of at least 4 x 4 places on which the scores depend.

    No other activation that depends on the image may cross the cut, and no layer may be used on
    both sides. In convolutional networks this is the input of the last pooling, as in the Grad-CAM
    paper, or if that is smaller, the output of the stage before. In a ViT with a class token it is
    the input of the last block, since the head reads only the class token after its attention.
    Tokens that do not keep the places of their patches (see `alignments`) are no map. A network
    without such a cut is cut where several maps are all that crosses, as the tokens of both
    branches of CrossViT. The cut sets `requires_grad` of the parameters.

    Raises:
        MedtlError: the network has no such map at this image size.
    """
    for point in _map_points(network, image_size):
        try:
            return cut(network, point, image_size)
        except MedtlError:  # a layer is used on both sides
            continue
    raise MedtlError(
        f"{type(network).__name__} has no map of {LEAST_SIDE} x {LEAST_SIDE} places at image_size "
        f"{image_size} that keeps the places of the image: use larger images or another network, "
        "or evaluate with maps=occlusion"
    )


def _map_points(network: nn.Module, image_size: int) -> Iterator[CutPoint]:
    """Yields the cut points at which maps are all that depends on the image, deepest first.

    Those of a single map come first, then those of two, and so on. An early map shows little of the
    network: of several maps, and in front of tokens out of order, only those in the later half of
    the operations count; a single map in the first quarter comes last, and not where there are
    several maps later.
    """
    graph = trace(network)
    gradients = _gradients(network, graph, image_size)
    images = graph.channels // 3
    last_use = {node: max(graph.places[user] for user in node.users) for node in gradients}
    maps = {
        node
        for node, gradient in gradients.items()
        if node.op != "placeholder"
        and places_a_side(gradient.shape[1:], images) >= LEAST_SIDE
        and as_map(gradient, images).any()
    }

    @cache
    def aligned() -> frozenset[fx.Node]:
        measured = alignments(graph, maps, image_size)
        return frozenset(node for node, each in measured.items() if each >= LEAST_ALIGNMENT)

    later, early = len(graph.nodes) // 2, len(graph.nodes) // 4
    earliest = {1: early} | dict.fromkeys(range(2, MOST_MAPS + 1), later)
    is_in_order, has_branches = True, False
    for size, least in [*earliest.items(), (1, 0)]:
        if least == 0 and has_branches:
            return
        for node in filter(maps.__contains__, reversed(gradients)):
            place = graph.places[node]
            crossing = {n for n, last in last_use.items() if graph.places[n] <= place < last}
            if place < (least if is_in_order else later):
                break
            if len(crossing) != size or not crossing <= maps:
                continue
            # convolutions keep places; tokens, and channels behind the places (Swin), may not
            *_, high, wide = gradients[node].shape
            is_convolution = gradients[node].ndim > 3 and high == wide
            if (is_convolution and size == 1 and is_in_order) or crossing <= aligned():
                has_branches = has_branches or size > 1
                yield CutPoint(f"operation {place + 1}", place + 1)
            elif size == 1:
                is_in_order = False


def _gradients(network: nn.Module, graph: Graph, image_size: int) -> dict[fx.Node, Tensor]:
    """Returns the gradient of the sum of the scores on each activation of a random image.

    In forward order, with the image as the first axis, by which images of a case and windows that
    are folded into the batch are the second.
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
            if node in of_images
            and isinstance(value, Tensor)
            and value.requires_grad
            and value.ndim
        }
        gradients = torch.autograd.grad(
            scores.sum(), list(values.values()), allow_unused=True, materialize_grads=True
        )
    return {
        node: each if len(each) == 1 else each[None]
        for node, each in zip(values, gradients, strict=True)
    }


class _Recorder(fx.Interpreter):
    """Interpreter of a traced network that records the value of each operation."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.values[n] = super().run_node(n)
        return self.values[n]
