"""What crosses a network at a cut point: tensors of each image, sizes, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from medtl.errors import MedtlError
from medtl.networks.cutpoints import CutPoint
from medtl.networks.graph import Graph, evaluating

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
