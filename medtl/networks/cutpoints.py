"""Naming the places where a network can be cut, in forward order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from medtl.errors import ParameterError
from medtl.networks.blocks import block_names
from medtl.networks.graph import Graph, has_parameters, is_within, trace
from medtl.networks.keras_names import keras_names


@dataclass(frozen=True)
class CutPoint:
    """A place to cut: before the layer, block or directly read parameter called `name`.

    `position` counts the operations that run before the cut, so two points of one architecture
    with the same position are the same cut. At position 0 nothing is frozen.
    """

    name: str
    position: int


def cut_points(network: nn.Module, kind: Literal["blocks", "layers"]) -> tuple[CutPoint, ...]:
    """All cut points in forward order: the first is the cut `all`, the last the cut `head`.

    `layers` are the modules with parameters of their own, and the parameters that a larger
    module reads directly (a class token, a layer scale). Where one operation reads the
    parameters of several layers (Swin's attention), the first of them stands for all.

    `blocks` are coarser: see `medtl.networks.blocks`.
    """
    graph = trace(network)
    return _points(graph, block_names(graph) if kind == "blocks" else graph.layers)


def resolve(network: nn.Module, architecture: str, cutoff: str) -> CutPoint:
    """The cut point that `cutoff` names.

    `cutoff` is `head`, `all`, the torchvision name of a layer or of any module that holds layers
    (`layer4`, `features.18`), or the Keras name of a layer where Keras has the architecture.

    Raises:
        ParameterError: there is no such layer (the nearest right names are given), it has no
            parameters to train, or one operation computes it together with another layer
            (which is then named).
    """
    graph = trace(network)
    if cutoff in ("all", "head"):
        blocks = _points(graph, block_names(graph))
        return blocks[0] if cutoff == "all" else blocks[-1]
    keras = keras_names(architecture)
    name = keras.get(cutoff.replace("/", "_"), cutoff)
    modules = [path for path, module in network.named_modules() if path and has_parameters(module)]
    if name not in modules and name not in graph.layers:
        raise _wrong_name(network, cutoff, [*modules, *graph.layers, *keras])
    position = graph.position(name)
    if position is None:
        raise _not_alone(cutoff, name.rpartition(".")[0])
    layers = _points(graph, graph.layers)
    first = next(layer for layer in layers if layer.position >= position)
    if not is_within(first.name, name):
        raise _not_alone(cutoff, first.name)
    return CutPoint(name, position)


def _points(graph: Graph, names: Iterable[str]) -> tuple[CutPoint, ...]:
    """The points of these names in forward order, the first name only for each position."""
    points: dict[int, CutPoint] = {}
    for name in names:
        position = graph.position(name)
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
