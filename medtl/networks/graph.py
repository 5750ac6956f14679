"""Traced graph of a network: its operations and its blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from torch import Tensor, fx, nn
from torchvision.models.maxvit import MaxVitBlock
from torchvision.models.regnet import AnyStage
from torchvision.models.resnet import ResNet
from torchvision.models.vision_transformer import Encoder
from torchvision.ops import StochasticDepth

SCOPE = "scope"  # key, in `meta` of an operation, of the path of the module that it runs in


class Composed(nn.Module):
    """Network that runs a graph of operations on its own layers.

    `operations` lead from images to scores; each has its `SCOPE`. `blocks` are the names of the
    coarse cut points: the first is the cut `all`, the last the cut `head`. `branches` are the
    names of children that do not depend on each other, each of which may have a cut of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = fx.Graph()
        self.blocks: tuple[str, ...] = ()
        self.branches: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
        """Runs the operations on images."""
        return fx.Interpreter(self, graph=self.operations).run(images)


def put(
    node: fx.Node, scope: str, into: fx.Graph, path: str, done: Mapping[fx.Node, fx.Node]
) -> fx.Node:
    """Copies an operation of another network, whose layers are at `path` of the composed one."""
    copy = into.node_copy(node, done.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copy.target = f"{path}.{node.target}"
    copy.meta[SCOPE] = f"{path}.{scope}" if scope else path
    return copy


@dataclass(frozen=True)
class Graph:
    """The operations of `network` in forward order: the images first, the class scores last.

    `modules[node]` is the path of the module whose `forward` ran the operation, `""` for the
    network's own.
    """

    network: nn.Module
    nodes: tuple[fx.Node, ...]
    modules: dict[fx.Node, str]

    @property
    def channels(self) -> int:
        """The channels of its input: three for each image of a case."""
        return 3 * getattr(self.network, "modalities", 1)

    @cached_property
    def places(self) -> dict[fx.Node, int]:
        """Where each operation stands: -1 for the images, then 0, 1, 2 ... up to the output.

        A parameter that `forward` reads directly stands where it is first used. (ConvNeXt, for
        one, names its layer scale before it runs the block that the scale is multiplied with.)
        """
        order = {node: index for index, node in enumerate(self.nodes, start=-1)}
        return {
            node: min((order[user] for user in node.users), default=place)
            if node.op == "get_attr"
            else place
            for node, place in order.items()
        }

    @cached_property
    def layers(self) -> dict[str, int]:
        """Every layer with parameters, by name, and the place where it is first used.

        A layer is a module that is one operation or whose children have no parameters. A parameter
        that a larger module reads directly (class token, layer scale) is a layer of its own.
        """
        layers: dict[str, int] = {}
        for node in sorted(self.nodes, key=self.places.__getitem__):
            if node.op == "call_module" and has_parameters(self.attribute(node.target)):
                layers.setdefault(node.target, self.places[node])
            elif node.op == "get_attr" and isinstance(self.attribute(node.target), nn.Parameter):
                layers.setdefault(self._reader(node.target), self.places[node])
        return layers

    def position(self, name: str) -> int | None:
        """How many operations run before the module or parameter `name`; None if it never runs.

        Operations before the first layer (Inception's own scaling of its input) freeze nothing:
        from there the position is 0.
        """
        places = [
            place
            for node, place in self.places.items()
            if is_within(node.target if node.op == "get_attr" else self.modules[node], name)
        ]
        if not places:
            return None
        return min(places) if min(places) > min(self.layers.values()) else 0

    def attribute(self, path: str) -> object:
        """The module, parameter or buffer of the network at `path`."""
        return attrgetter(path)(self.network)

    def _reader(self, parameter: str) -> str:
        """The name of the layer to which a directly read parameter belongs."""
        path, _, _ = parameter.rpartition(".")
        module = self.network.get_submodule(path)
        return parameter if any(map(has_parameters, module.children())) else path


def has_parameters(module: nn.Module) -> bool:
    """Is there anything to train in the module?"""
    return next(module.parameters(), None) is not None


def is_within(path: str, name: str) -> bool:
    """Is `path` the module or parameter `name`, or inside it?"""
    return path == name or path.startswith(f"{name}.")


def trace(network: nn.Module) -> Graph:
    """Follows the images through `network.forward` without computing anything.

    Traced in eval mode: dropout and batch norm stay modules that obey `.train()`, and auxiliary
    heads, which only training would run, are left out.
    """
    if isinstance(network, Composed):
        nodes = tuple(network.operations.nodes)
        return Graph(network, nodes, {node: node.meta[SCOPE] for node in nodes})
    tracer = _Tracer()
    with evaluating(network):
        graph = tracer.trace(network)
    nodes = tuple(graph.nodes)
    modules = {node: tracer.node_name_to_scope.get(node.name, ("", None))[0] for node in nodes}
    return Graph(network, nodes, modules)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode for the time of the block; then every module has the mode that it had before."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _Tracer(fx.Tracer):
    """Goes into every module but those of `torch.nn`, so that each layer is an operation."""

    # Buffers read in `forward` (Swin, MaxViT) stay buffers under their own names.
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # Stochastic depth decides by its mode, which only a module can still be told later.
        return isinstance(m, StochasticDepth) or super().is_leaf_module(m, module_qualified_name)


# These only line up blocks (a ResNet where it is a part of a larger network). Any other module that
# has children is a block.
_LINES_OF_BLOCKS = (nn.Sequential, nn.ModuleList, AnyStage, Encoder, MaxVitBlock, ResNet)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def block_names(graph: Graph) -> list[str]:
    """The names of a network's blocks in forward order.

    A block is a residual, dense, inception or transformer block as torchvision builds it; or a run
    of plain layers up to a pooling layer (a VGG block), named by the first of them; or a linear
    layer. What has no parameters belongs to the block before it. Block-wise fine-tuning is that of
    Kandel & Castelli, 2020, How deeply to fine-tune a convolutional neural network,
    doi:10.3390/app10103359; where a block begins in each architecture is ours.
    """
    if isinstance(graph.network, Composed):
        return list(graph.network.blocks)
    units = [
        (position, name, module)
        for name, module in _units(graph.network, "")
        if (position := graph.position(name)) is not None
    ]
    units.sort(key=lambda unit: unit[0])
    names = []
    in_run = False
    for _, name, module in units:
        if not has_parameters(module):
            in_run = in_run and not isinstance(module, _POOLS)
            continue
        is_plain = not any(module.children()) and not isinstance(module, nn.Linear)
        if not (is_plain and in_run):
            names.append(name)
        in_run = is_plain
    return names


def _units(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if type(child) in _LINES_OF_BLOCKS:
            yield from _units(child, child_path)
        else:
            yield child_path, child
