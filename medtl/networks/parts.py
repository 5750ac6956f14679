"""Taking a part of a network, from one border to another, out into a module of its own."""

from __future__ import annotations

import operator

from torch import Tensor, fx
from torch.fx.node import Argument

from medtl.networks.borders import Border
from medtl.networks.graph import Graph


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
