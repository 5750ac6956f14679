"""Partition of a network at a cut-off: frozen prefix, trainable suffix."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from medtl.errors import MedtlError
from medtl.networks.copy_free_activations import without_copies
from medtl.networks.cutoffs import CutPoint
from medtl.networks.graph import Graph, evaluating, trace

_BATCHES = (2, 3)


@dataclass(frozen=True)
class Border:
    """Values that are computed before a cut point and used after it.

    Attributes:
        point: the cut point.
        folds: tensors with values of each image, in forward order, and how many parts of one image
            are along their first axis: 1, or more where windows, patches, or the images of a case
            are folded into the batch.
        shapes: shapes of these tensors for one image (unfolded).
        sizes: whole numbers that are this multiple of the batch size.
        constants: numbers and tensors that do not depend on the images.
    """

    point: CutPoint
    folds: dict[fx.Node, int]
    shapes: tuple[tuple[int, ...], ...]
    sizes: dict[fx.Node, int]
    constants: dict[fx.Node, object]


def borders(graph: Graph, points: Sequence[CutPoint], image_size: int) -> list[Border]:
    """Returns the border at each of the points, for images [B, C, `image_size`, `image_size`].

    Runs the network, up to the deepest of the points, on a batch of two images and on one of
    three: values that grow with the batch belong to the images, others are constant. The second
    image is NaN, and so is every value that depends on it. A border without constant tensors,
    which depend on the weights, is found once for all networks of the structure.

    Raises:
        MedtlError: a value crosses that is neither constant nor separable by image.
    """
    known = graph.trace.results
    keys = {point: ("border", point.key, image_size) for point in points}
    unknown = [point for point in keys if keys[point] not in known]
    found = {each.point: each for each in _measured(graph, unknown, image_size)}
    for point, border in found.items():
        if not any(isinstance(value, Tensor) for value in border.constants.values()):
            known[keys[point]] = border
    return [
        found.get(point) or replace(cast(Border, known[keys[point]]), point=point)
        for point in points
    ]


def _measured(graph: Graph, points: Sequence[CutPoint], image_size: int) -> list[Border]:
    if not points:
        return []
    crossing = [_crossing(graph, point) for point in points]
    wanted = list(dict.fromkeys(node for nodes in crossing for node in nodes))
    runs = [_values(graph, wanted, batch, image_size) for batch in _BATCHES]
    two, three = runs
    return [
        _border(graph, point, {node: (two[node], three[node]) for node in nodes})
        for point, nodes in zip(points, crossing, strict=True)
    ]


def _crossing(graph: Graph, point: CutPoint) -> list[fx.Node]:
    frozen = {node for node, place in graph.places.items() if point.freezes(place)}
    return [node for node in graph.nodes if node in frozen and not frozen.issuperset(node.users)]


def _values(
    graph: Graph, wanted: Sequence[fx.Node], batch: int, size: int
) -> dict[fx.Node, object]:
    """Returns the values of the wanted operations for a batch whose second image is NaN."""
    until = max(graph.places[node] for node in wanted)
    copy = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if graph.places[node] <= until:
            copied[node] = copy.node_copy(node, copied.__getitem__)
    copy.output(tuple(copied[node] for node in wanted))
    parameter = next(graph.network.parameters())
    shape = (batch, graph.channels, size, size)
    images = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
    images[1] = torch.nan
    with evaluating(graph.network), torch.no_grad():
        values = fx.GraphModule(graph.network, copy)(images)
    return dict(zip(wanted, values, strict=True))


def _border(
    graph: Graph, point: CutPoint, crossing: dict[fx.Node, tuple[object, object]]
) -> Border:
    folds: dict[fx.Node, int] = {}
    shapes: list[tuple[int, ...]] = []
    sizes: dict[fx.Node, int] = {}
    constants: dict[fx.Node, object] = {}
    for node, (two, three) in crossing.items():
        if _is_constant(two, three):
            constants[node] = two
        elif isinstance(two, int) and isinstance(three, int) and two * 3 == three * 2:
            sizes[node] = two // 2
        elif isinstance(two, Tensor) and (fold := _images_folded(two, three)):
            folds[node] = fold
            shapes.append(tuple(two.unflatten(0, (2, fold)).shape[1 if fold > 1 else 2 :]))
        else:
            raise MedtlError(
                f"{type(graph.network).__name__} cannot be cut at {point.name}: "
                f"{node} crosses there and does not hold one part for each image"
            )
    return Border(point, folds, tuple(shapes), sizes, constants)


def _is_constant(two: object, three: object) -> bool:
    if isinstance(two, Tensor) and isinstance(three, Tensor):
        return two.shape == three.shape and torch.equal(two, three)
    return two == three


def _images_folded(two: Tensor, three: object) -> int:
    """Returns how many parts of an image the first axis has; 0 if it is not the batch.

    Several parts must be ordered by image: those of the first image do not depend on the second.
    """
    if not isinstance(three, Tensor) or two.ndim == 0 or two.shape[1:] != three.shape[1:]:
        return 0
    folds, rest = divmod(len(two), 2)
    if rest or len(three) != 3 * folds:
        return 0
    return folds if folds == 1 or not two[:folds].isnan().any() else 0


def part(graph: Graph, start: Border, stop: Border | None) -> fx.GraphModule:
    """Returns the operations from one border to the next, or to the scores if `stop` is None.

    The part maps the tensors that cross at `start`, with the batch as the first axis, to the tuple
    of those that cross at `stop`, or to the scores. It runs on the network's own layers and
    parameters, under their own names. Constants that cross at `start` are buffers of the part,
    outside its state dict.
    """
    inside = {
        node
        for node, place in graph.places.items()
        if not start.point.freezes(place) and (stop is None or stop.point.freezes(place))
    }
    copy = fx.Graph()
    copied: dict[fx.Node, Any] = {}  # nodes and constants
    tensors = [copy.placeholder(node.name) for node in start.folds]
    for tensor, (node, fold) in zip(tensors, start.folds.items(), strict=True):
        copied[node] = copy.call_method("flatten", (tensor, 0, 1)) if fold > 1 else tensor
    for node, multiple in start.sizes.items():
        if not inside.isdisjoint(node.users):
            batch = copy.call_method("size", (tensors[0], 0))
            copied[node] = copy.call_function(operator.mul, (batch, multiple))
    constants = {}
    for node, value in start.constants.items():
        copied[node] = value
        if isinstance(value, Tensor) and not inside.isdisjoint(node.users):
            constants[node.name] = value
            copied[node] = copy.get_attr(node.name)

    for node in graph.nodes:
        if node in inside:
            copied[node] = copy.node_copy(node, copied.__getitem__)
    if stop:
        crossing = stop.folds.items()
        copy.output(tuple(_unfolded(copy, copied[node], fold) for node, fold in crossing))
    return _module(graph, copy, constants)


def _unfolded(copy: fx.Graph, node: fx.Node, fold: int) -> fx.Node:
    return copy.call_method("unflatten", (node, 0, (-1, fold))) if fold > 1 else node


def _module(graph: Graph, copy: fx.Graph, constants: dict[str, Tensor]) -> fx.GraphModule:
    paths = [node.target for node in copy.nodes if node.op in ("get_attr", "call_module")]
    attributes = {path: graph.attribute(path) for path in paths if path not in constants}
    module = fx.GraphModule(attributes | constants, copy)
    for name, value in constants.items():
        delattr(module, name)
        module.register_buffer(name, value, persistent=False)
    return module


_IMAGES = CutPoint("images", 0)


class Frozen(nn.Module):
    """Part of a network that is never trained.

    Its parameters require no gradient. It computes in eval mode, so that batch norm keeps its
    statistics and dropout stays off, also after `.train()` of this part or of the whole network.
    """

    def __init__(self, operations: fx.GraphModule) -> None:
        super().__init__()
        self.operations = operations.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Stays in eval mode, whatever `mode` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the tensors that cross its end from those that cross its start."""
        # The layers are the network's own, so its `.train()` changed them too.
        self.operations.eval()
        return self.operations(*tensors)


@dataclass(frozen=True)
class Cut:
    """Network cut at `point`: `suffix(*prefix(images))` are the scores of the whole.

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

    Both halves share the network's parameters: training the suffix trains the network. Those of
    the prefix no longer require a gradient, those of the suffix do, also after earlier cuts.
    Constants that cross the cut are stored in the suffix: load weights into the network, and move
    it to its device, before the cut.

    Raises:
        MedtlError: the network cannot be cut there; the message names both.
    """
    return cut_by_way_of([], network, point, image_size)[1]


def cut_by_way_of(
    stops: Sequence[CutPoint], network: nn.Module, point: CutPoint, image_size: int
) -> tuple[list[Frozen], Cut]:
    """Cuts a network at a point, and its prefix into parts at stops before it.

    The stops are in forward order. The parts lead to the first stop, from it to the next, and so
    on to `point`.

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
    """Returns the frozen parts from the images to the first point, from it to the second, ...

    `points` are in forward order. Run one after the other, the parts compute in one pass the
    tensors that cross at each point. They are copies: later changes of the network do not affect
    them.
    """
    graph = trace(network)
    known = borders(graph, [_IMAGES, *points], image_size)
    return [Frozen(folded(part(graph, start, stop))) for start, stop in pairwise(known)]


def folded(operations: fx.GraphModule) -> fx.GraphModule:
    """Returns a copy in eval mode with batch norms folded into the convolutions before them.

    Equal but for rounding. Later changes of the network, also of its device, do not affect it.
    """
    operations = copy.deepcopy(operations).eval()
    calls = Counter(node.target for node in operations.graph.nodes if node.op == "call_module")
    if max(calls.values(), default=0) > 1:
        # a layer that runs twice may be followed by two different norms
        return operations
    return cast(fx.GraphModule, fuse(operations, inplace=True, no_trace=True))
