"""Partition of a network at a cut-off: frozen prefix, trainable suffix."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.node import Argument

from medtl.errors import MedtlError
from medtl.networks.cutoffs import CutPoint
from medtl.networks.graph import Graph, evaluating, trace
from medtl.networks.inplace_activations import without_copies

_BATCHES = (2, 3)


@dataclass(frozen=True)
class Border:
    """The values that are computed before a cut point and used after it.

    `folds` names the tensors that hold something of each image, in forward order, and how many
    parts of one image lie along their first axis: 1, or more where windows, patches, or the images
    of a case are folded into the batch. `shapes` are the shapes of these tensors for one image
    (unfolded). `sizes` are whole numbers that are so many times the batch. `constants` are numbers
    and tensors of the frozen half that do not depend on the images.
    """

    point: CutPoint
    folds: dict[fx.Node, int]
    shapes: tuple[tuple[int, ...], ...]
    sizes: dict[fx.Node, int]
    constants: dict[fx.Node, object]


def borders(graph: Graph, points: Sequence[CutPoint], image_size: int) -> list[Border]:
    """The border at each of the points, for images [B, C, `image_size`, `image_size`].

    Runs the network, up to the deepest of the points, on a batch of two images and on one of
    three: what grows with the batch belongs to the images, what does not is constant. The second
    image is not a number, and so is everything that depends on it.

    Raises:
        MedtlError: something crosses that is neither constant nor separable by image.
    """
    crossing = [_crossing(graph, point) for point in points]
    wanted = list(dict.fromkeys(node for nodes in crossing for node in nodes))
    runs = [_values(graph, wanted, batch, image_size) for batch in _BATCHES]
    return [
        _border(graph, point, {node: tuple(run[node] for run in runs) for node in nodes})
        for point, nodes in zip(points, crossing, strict=True)
    ]


def _crossing(graph: Graph, point: CutPoint) -> list[fx.Node]:
    frozen = {node for node, place in graph.places.items() if point.freezes(place)}
    return [node for node in graph.nodes if node in frozen and not frozen.issuperset(node.users)]


def _values(
    graph: Graph, wanted: Sequence[fx.Node], batch: int, size: int
) -> dict[fx.Node, object]:
    """The values of the wanted operations for a batch whose second image is not a number."""
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


def _border(graph: Graph, point: CutPoint, crossing: dict[fx.Node, tuple]) -> Border:
    folds, shapes, sizes, constants = {}, [], {}, {}
    for node, (two, three) in crossing.items():
        if _is_constant(two, three):
            constants[node] = two
        elif isinstance(two, int) and two * 3 == three * 2:
            sizes[node] = two // 2
        elif fold := _images_folded(two, three):
            folds[node] = fold
            shapes.append(tuple(two.unflatten(0, (2, fold)).shape[1 if fold > 1 else 2 :]))
        else:
            raise MedtlError(
                f"{type(graph.network).__name__} cannot be cut at {point.name}: "
                f"{node} crosses there and does not hold one part for each image"
            )
    return Border(point, folds, tuple(shapes), sizes, constants)


def _is_constant(two: object, three: object) -> bool:
    if isinstance(two, torch.Tensor):
        return two.shape == three.shape and torch.equal(two, three)
    return two == three


def _images_folded(two: object, three: object) -> int:
    """How many parts of an image the first axis folds into the batch; 0 if it is not the batch.

    Several parts must lie image by image: those of the first image do not depend on the second.
    """
    if not isinstance(two, torch.Tensor) or two.ndim == 0 or two.shape[1:] != three.shape[1:]:
        return 0
    folds, rest = divmod(len(two), 2)
    if rest or len(three) != 3 * folds:
        return 0
    return folds if folds == 1 or not two[:folds].isnan().any() else 0


def part(graph: Graph, start: Border, stop: Border | None) -> fx.GraphModule:
    """The operations from one border to the next, or to the scores when `stop` is None.

    The part takes the tensors that cross at `start`, the batch along the first axis of each, and
    gives the tuple of those that cross at `stop`, or the scores. It runs on the network's own
    layers and parameters, under their own names. Constants that cross at `start` are buffers
    of the part, outside its state dict.
    """
    inside = {
        node
        for node, place in graph.places.items()
        if not start.point.freezes(place) and (stop is None or stop.point.freezes(place))
    }
    copy = fx.Graph()
    copied: dict[fx.Node, Argument] = {}
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
