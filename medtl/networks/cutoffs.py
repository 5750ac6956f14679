"""Cut points: the places where a network can be cut, by name and in forward order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

from medtl.errors import ParameterError
from medtl.networks.graph import Composed, Graph, block_names, has_parameters, is_within, trace
from medtl.networks.keras_layer_names import keras_names


@dataclass(frozen=True)
class CutPoint:
    """Cut before the layer, block or directly read parameter called `name`.

    Attributes:
        name: of the first layer that is trained.
        position: number of operations in forward order before the first that is trained.
        beyond: places of later operations that are frozen too: those of a branch that a cut
            `LAYER+LAYER` freezes further than the other.
    """

    name: str
    position: int
    beyond: frozenset[int] = frozenset()

    def freezes(self, place: int) -> bool:
        """Returns whether the operation at this place in the graph is before the cut."""
        return place < self.position or place in self.beyond

    @property
    def key(self) -> tuple[int, ...]:
        """Key that equal cuts of one architecture share; (0,) freezes nothing."""
        return (self.position, *sorted(self.beyond))


def cut_points(network: nn.Module, kind: Literal["blocks", "layers"]) -> tuple[CutPoint, ...]:
    """Returns all cut points in forward order: the first is the cut `all`, the last `head`.

    `layers` are the modules with parameters of their own, and the parameters that a larger
    module reads directly (a class token, a layer scale). Where one operation reads the
    parameters of several layers (Swin's attention), the first of them represents all.

    A head of several layers (that of a `dual`) is one layer. `blocks` are coarser: see
    `medtl.networks.graph.block_names`.
    """
    graph = trace(network)
    return _blocks(graph) if kind == "blocks" else _layers(graph)


def halfway(network: nn.Module, point: CutPoint) -> CutPoint | None:
    """Returns the cut point of the middle block of those that `point` freezes.

    None if it freezes fewer than two.
    """
    blocks = cut_points(network, "blocks")
    before = [block for block in blocks if 0 < block.position < point.position]
    return before[len(before) // 2] if before else None


def resolve(network: nn.Module, architecture: str, cutoff: str) -> CutPoint:
    """Returns the cut point that `cutoff` names.

    `cutoff` is `head`, `all`, the name of a layer or of any module that holds layers in the
    network (`layer4`, `features.18`), or the Keras name of a layer where Keras has the
    architecture. For a `dual` it may be `LAYER+LAYER`, one for each half without its `first.` or
    `second.`: each half is trained from its own layer on, `head` freezes all of it and `all`
    nothing.

    Raises:
        ParameterError: there is no such layer (the nearest right names are given), it has no
            parameters to train, or one operation computes it together with another layer
            (which is then named).
    """
    graph = trace(network)
    branches = network.branches if isinstance(network, Composed) else ()
    layers = cutoff.split("+")
    if branches and len(layers) == len(branches):
        each = dict(zip(branches, layers, strict=True))
        return _by_branch(graph, architecture, cutoff, each)
    return _one_sided(graph, architecture, cutoff)


def _one_sided(graph: Graph, architecture: str, cutoff: str) -> CutPoint:
    *_, head = blocks = _blocks(graph)
    if cutoff in ("all", "head"):
        return head if cutoff == "head" else blocks[0]
    network = graph.network
    modules = [path for path, module in network.named_modules() if path and has_parameters(module)]
    keras = {k: v for k, v in keras_names(architecture).items() if v in modules}
    name = keras.get(cutoff.replace("/", "_"), cutoff)
    if name not in modules and name not in graph.layers:
        raise _wrong_name(network, cutoff, [*modules, *graph.layers, *keras])
    position = graph.position(name)
    if position is None:
        raise _not_alone(cutoff, name.rpartition(".")[0])
    if name.startswith(f"{head.name}."):
        raise ParameterError("cutoff", cutoff, f"it is a part of the head: cut at {head.name}")
    layers = _layers(graph)
    first = next(layer for layer in layers if layer.position >= position)
    if not is_within(first.name, name):
        raise _not_alone(cutoff, first.name)
    return CutPoint(name, position)


def _by_branch(graph: Graph, architecture: str, cutoff: str, layers: Mapping[str, str]) -> CutPoint:
    """Returns the cut with each branch frozen up to its own layer."""
    frozen = set()
    for branch, layer in layers.items():
        name = layer if layer in ("all", "head") else f"{branch}.{layer}"
        try:
            point = _one_sided(graph, architecture, name)
        except ParameterError as error:
            raise ParameterError("cutoff", cutoff, f"of {name}, {error.allowed}") from error
        frozen |= {
            place
            for node, place in graph.places.items()
            if point.freezes(place) and is_within(graph.modules[node], branch)
        }
    position = next(place for place in range(len(graph.nodes)) if place not in frozen)
    return CutPoint(cutoff, position, frozenset(place for place in frozen if place > position))


def _blocks(graph: Graph) -> tuple[CutPoint, ...]:
    return _points(graph, block_names(graph))


def _layers(graph: Graph) -> tuple[CutPoint, ...]:
    head = _blocks(graph)[-1]
    layers = _points(graph, graph.layers)
    return (*(layer for layer in layers if layer.position < head.position), head)


def _points(graph: Graph, names: Iterable[str]) -> tuple[CutPoint, ...]:
    """Returns the points of these names in forward order, one name for each position."""
    points: dict[int, CutPoint] = {}
    for name in names:
        position = graph.start(name)
        points.setdefault(position, CutPoint(name, position))
    return tuple(points[position] for position in sorted(points))


def _wrong_name(network: nn.Module, cutoff: str, names: Iterable[str]) -> ParameterError:
    if cutoff and cutoff in dict(network.named_modules()):
        return ParameterError("cutoff", cutoff, "it has no parameters to train")
    near = difflib.get_close_matches(cutoff, list(dict.fromkeys(names)), n=3, cutoff=0.3)
    allowed = ["head", "all", *near]
    return ParameterError("cutoff", cutoff, f"no such layer; the nearest are {', '.join(allowed)}")


def _not_alone(cutoff: str, larger: str) -> ParameterError:
    return ParameterError(
        "cutoff", cutoff, f"it is computed in one operation with {larger}: cut at {larger}"
    )
