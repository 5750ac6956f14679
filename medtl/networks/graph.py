"""Traced graph of a network: its operations and its blocks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, partial
from operator import attrgetter
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, fx, nn
from torchvision.models.maxvit import MaxVitBlock
from torchvision.models.regnet import AnyStage
from torchvision.models.resnet import ResNet
from torchvision.models.vision_transformer import Encoder
from torchvision.ops import StochasticDepth

Result = TypeVar("Result")
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
    """Copies an operation of a network whose layers are at `path` of the composed one."""
    copy = into.node_copy(node, done.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copy.target = f"{path}.{node.target}"
    copy.meta[SCOPE] = f"{path}.{scope}" if scope else path
    return copy


@dataclass(frozen=True)
class Trace:
    """Operations of all networks of one structure, in forward order.

    Attributes:
        nodes: the images first, the class scores last.
        modules: path of the module whose `forward` runs the operation, `""` for the network's own.
        results: what was computed from the structure alone, by `once`.
    """

    nodes: tuple[fx.Node, ...]
    modules: dict[fx.Node, str]
    results: dict[Hashable, object] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[fx.Node, int]:
        """Place of each operation: -1 for the images, then 0, 1, 2 ... up to the output.

        A parameter that `forward` reads directly has the place of its first use. (ConvNeXt, for
        one, reads its layer scale before it runs the block that the scale is multiplied with.)
        """
        order = {node: index for index, node in enumerate(self.nodes, start=-1)}
        return {
            node: min((order[user] for user in node.users), default=place)
            if node.op == "get_attr"
            else place
            for node, place in order.items()
        }


@dataclass(frozen=True)
class Graph:
    """Operations of `network`; networks of equal structure share their `trace`."""

    network: nn.Module
    trace: Trace

    @property
    def nodes(self) -> tuple[fx.Node, ...]:
        """Operations in forward order: the images first, the class scores last."""
        return self.trace.nodes

    @property
    def modules(self) -> dict[fx.Node, str]:
        """Path of the module whose `forward` runs the operation, `""` for the network's own."""
        return self.trace.modules

    @property
    def places(self) -> dict[fx.Node, int]:
        """Place of each operation in forward order, see `Trace.places`."""
        return self.trace.places

    @property
    def channels(self) -> int:
        """Channels of the input: three for each image of a case."""
        return 3 * getattr(self.network, "modalities", 1)

    @property
    def layers(self) -> dict[str, int]:
        """Every layer with parameters, by name, and the place where it is first used.

        A layer is a module that is one operation or whose children have no parameters. A parameter
        that a larger module reads directly (class token, layer scale) is a layer of its own.
        """
        return self.once("layers", self._layers)

    def _layers(self) -> dict[str, int]:
        layers: dict[str, int] = {}
        for node in sorted(self.nodes, key=self.places.__getitem__):
            read = self.attribute(path_of(node)) if node.op in ("call_module", "get_attr") else None
            if isinstance(read, nn.Module) and has_parameters(read):
                layers.setdefault(path_of(node), self.places[node])
            elif isinstance(read, nn.Parameter):
                layers.setdefault(self._reader(path_of(node)), self.places[node])
        return layers

    def position(self, name: str) -> int | None:
        """Returns how many operations run before a module or parameter; None if it never runs.

        Operations before the first layer (Inception's own scaling of its input) freeze nothing:
        from there the position is 0.
        """
        return self.once(("position", name), lambda: self._position(name))

    def _position(self, name: str) -> int | None:
        places = [
            place
            for node, place in self.places.items()
            if is_within(path_of(node) if node.op == "get_attr" else self.modules[node], name)
        ]
        if not places:
            return None
        return min(places) if min(places) > min(self.layers.values()) else 0

    def start(self, name: str) -> int:
        """Returns how many operations run before a module or parameter that runs."""
        position = self.position(name)
        if position is None:
            raise ValueError(f"{name} does not run")
        return position

    def attribute(self, path: str) -> object:
        """Returns the module, parameter or buffer of the network at `path`."""
        return attrgetter(path)(self.network)

    def once(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """Returns `compute()`, computed once for all networks of this structure.

        The result may depend on types, settings and shapes, not on the values of weights.
        """
        if key not in self.trace.results:
            self.trace.results[key] = compute()
        return cast(Result, self.trace.results[key])

    def _reader(self, parameter: str) -> str:
        """Returns the name of the layer to which a directly read parameter belongs."""
        path, _, _ = parameter.rpartition(".")
        module = self.network.get_submodule(path)
        return parameter if any(map(has_parameters, module.children())) else path


def path_of(node: fx.Node) -> str:
    """Returns the path of the module, parameter or buffer that an operation calls or reads."""
    return cast(str, node.target)  # a function or method name in other operations


def has_parameters(module: nn.Module) -> bool:
    """Returns whether the module has parameters."""
    return next(module.parameters(), None) is not None


def is_within(path: str, name: str) -> bool:
    """Returns whether `path` is the module or parameter `name`, or inside it.

    >>> is_within("layer4.0.conv1", "layer4"), is_within("layer41", "layer4")
    (True, False)
    """
    return path == name or path.startswith(f"{name}.")


def trace(network: nn.Module) -> Graph:
    """Traces the images through `network.forward` without computing values.

    In eval mode: dropout and batch norm remain modules that follow `.train()`, and auxiliary heads,
    which run in training only, are left out. A module that cannot be traced, for control flow that
    depends on values, is one operation. Networks of equal structure are traced once in a process.

    Raises:
        UntraceableError: the network's own `forward` cannot be traced.
    """
    key = structure(network)
    with _lock:
        traced = _traces.pop(key, None)
        if traced is not None:
            _traces[key] = traced  # the most recent is the last
            return Graph(network, traced)
    attributes = set(vars(network))
    traced = _traced(network)
    if key is not None and set(vars(network)) == attributes:  # else it stored constants there
        with _lock:
            traced = _traces.setdefault(key, traced)
            while len(_traces) > _MOST_TRACES:
                del _traces[next(iter(_traces))]
    return Graph(network, traced)


def _traced(network: nn.Module) -> Trace:
    if isinstance(network, Composed):
        nodes = tuple(network.operations.nodes)
        return Trace(nodes, {node: node.meta[SCOPE] for node in nodes})
    whole: set[str] = set()
    constant_shapes = False
    while True:
        tracer = _Tracer(frozenset(whole), constant_shapes)
        try:
            with evaluating(network):
                defaults = _defaults(network)
                nodes = _without_defaults(tracer.trace(network, defaults), defaults)
        except Exception as error:  # tracing runs code of any network
            if tracer.failed:
                whole.add(tracer.failed)
            elif not constant_shapes:
                constant_shapes, whole = True, set()
            else:
                reason = " ".join(str(error).split())[:200]
                raise UntraceableError(f"its forward cannot be traced: {reason}") from error
        else:
            names = tracer.node_name_to_scope
            return Trace(nodes, {node: names.get(node.name, ("", None))[0] for node in nodes})


def _defaults(network: nn.Module) -> dict[str, object]:
    """Returns the arguments of `forward` that have a default, with it."""
    arguments = inspect.signature(network.forward).parameters.values()
    return {each.name: each.default for each in arguments if each.default is not each.empty}


def _without_defaults(operations: fx.Graph, defaults: Collection[str]) -> tuple[fx.Node, ...]:
    """Returns the operations without those by which fx checks arguments that have a default."""
    inputs = operations.find_nodes(op="placeholder")
    removed = set(inputs[len(inputs) - len(defaults) :])
    for node in operations.nodes:
        if not removed.isdisjoint(node.all_input_nodes):
            removed.add(node)
    for node in reversed(operations.nodes):
        if node in removed:
            operations.erase_node(node)
    return tuple(operations.nodes)


class UntraceableError(ValueError):
    """A network whose operations cannot be traced, so that it cannot be cut."""


_MOST_TRACES = 16
_traces: dict[Hashable, Trace] = {}
_lock = threading.Lock()  # of `_traces`: servers answer in several threads
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_PLAIN: frozenset[type] = frozenset(
    (
        *(bool, int, float, complex, str, NoneType, FunctionType, BuiltinFunctionType),
        *(torch.dtype, torch.device),
    )
)


def structure(network: nn.Module) -> Hashable | None:
    """Returns a key that networks share which run the same operations on other weights.

    It has the type, settings and shapes of every module. None if a module has settings that cannot
    be compared, such as a tensor that is no buffer.
    """
    try:
        return tuple(
            (path, type(module), *_comparable(_settings(module)))
            for path, module in network.named_modules(remove_duplicate=False)
        )
    except TypeError:
        return None


def _settings(module: nn.Module) -> list[object]:
    own = [each for each in vars(module).items() if each[0] not in _OF_EVERY_MODULE]
    tensors = (*module._parameters.items(), *module._buffers.items())
    return [*own, *((name, None if each is None else each.shape) for name, each in tensors)]


def _comparable(value: object) -> tuple[object, ...]:
    """Returns a setting as a hashable value with its type.

    Raises:
        TypeError: it has none.
    """
    if type(value) in _PLAIN or isinstance(value, type):
        return type(value), value
    if isinstance(value, list | tuple | set | frozenset):
        return type(value), *map(_comparable, value)
    if isinstance(value, dict):
        return type(value), *map(_comparable, value.items())
    if isinstance(value, partial):
        return type(value), *map(_comparable, (value.func, value.args, value.keywords))
    if isinstance(value, Enum):
        return type(value), value.name
    if isinstance(value, fx.Graph):
        return type(value), *(node.format_node() for node in value.nodes)
    raise TypeError(f"{type(value).__name__} cannot be compared")


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in eval mode for the block, then restores the mode of every module."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


# Stochastic depth depends on its mode, which is known at run time only.
_leaf_modules: set[type[nn.Module]] = {StochasticDepth}
_leaf_functions: set[Callable[..., object]] = set()


def register_leaves(
    modules: Iterable[type[nn.Module]], functions: Iterable[Callable[..., object]] = ()
) -> None:
    """Registers types of modules, and functions, that are one operation in a trace."""
    _leaf_modules.update(modules)
    _leaf_functions.update(functions)


class _Tracer(fx.Tracer):
    """Traces into every module but those of `torch.nn`, so that each layer is an operation.

    The modules at the paths `whole` are one operation too. With `constant_shapes`, sizes of
    parameters and buffers are numbers in the trace, not operations. `failed` is the path of the
    innermost module in which tracing failed.
    """

    # Buffers read in `forward` (Swin, MaxViT) stay buffers under their own names.
    proxy_buffer_attributes = True

    def __init__(self, whole: frozenset[str], constant_shapes: bool) -> None:
        super().__init__(
            autowrap_functions=tuple(_leaf_functions), param_shapes_constant=constant_shapes
        )
        self.whole = whole
        self.failed = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Returns whether a module is one operation."""
        return (
            module_qualified_name in self.whole
            or type(m) in _leaf_modules
            or super().is_leaf_module(m, module_qualified_name)
        )

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Reads an attribute of a module; buffers have their real sizes with `constant_shapes`."""
        if self.param_shapes_constant and isinstance(attr_val, Tensor):
            for name, buffer in self.root.named_buffers():
                if buffer is attr_val:
                    node = self.create_proxy("get_attr", name, (), {}).node
                    return _BufferProxy(node, self, buffer)
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Traces a module or records it as one operation; notes where tracing fails."""
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or self.path_of_module(m)
            raise


class _BufferProxy(fx.Proxy):
    """A buffer in a trace; its sizes are numbers."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, buffer: Tensor) -> None:
        super().__init__(node, tracer)
        self.buffer = buffer

    @property
    def shape(self) -> torch.Size:
        return self.buffer.shape

    @property
    def ndim(self) -> int:
        return self.buffer.ndim

    def size(self, dim: int | None = None) -> torch.Size | int:
        return self.buffer.shape if dim is None else self.buffer.shape[dim]

    def numel(self) -> int:
        return self.buffer.numel()


# Containers of blocks (a ResNet where it is a part of a larger network). Any other module with
# children is a block.
_CONTAINERS = (nn.Sequential, nn.ModuleList, AnyStage, Encoder, MaxVitBlock, ResNet)


_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)  # timm's have activations
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def block_names(graph: Graph) -> list[str]:
    """Returns the names of a network's blocks in forward order.

    A block is a residual, dense, inception or transformer block as torchvision builds it; or a run
    of plain layers up to a pooling layer (a VGG block), named by the first of them; or a linear
    layer. Modules without parameters belong to the block before them. Block-wise fine-tuning
    follows Kandel & Castelli 2020, "How deeply to fine-tune a convolutional neural network",
    doi:10.3390/app10103359; where a block begins in each architecture is our choice.

    A network may have two attributes: `containers` are the paths of further modules whose children
    are blocks; `output_layers` names several output layers side by side (distilled vision
    transformers), at the first of which the last block begins.
    """
    if isinstance(graph.network, Composed):
        return list(graph.network.blocks)
    return graph.once("blocks", lambda: _block_names(graph))


def _block_names(graph: Graph) -> list[str]:
    units = [
        (position, name, module)
        for name, module in _units(graph.network, "", getattr(graph.network, "containers", ()))
        if (position := graph.position(name)) is not None
    ]
    units.sort(key=lambda unit: unit[0])
    names = []
    in_run = False
    for _, name, module in units:
        if not has_parameters(module):
            in_run = in_run and not isinstance(module, _POOLS)
            continue
        is_plain = isinstance(module, _NORMS) or not any(module.children())
        is_plain = is_plain and not isinstance(module, nn.Linear)
        if not (is_plain and in_run):
            names.append(name)
        in_run = is_plain
    outputs = getattr(graph.network, "output_layers", ())
    if outputs:
        head = min(outputs, key=graph.start)
        names = [name for name in names if graph.start(name) < graph.start(head)]
        names.append(head)
    return names


def _units(
    module: nn.Module, path: str, containers: Collection[str]
) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if type(child) in _CONTAINERS or child_path in containers:
            yield from _units(child, child_path, containers)
        else:
            yield child_path, child
