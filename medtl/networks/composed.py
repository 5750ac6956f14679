"""A network that is given as its operations, not as code: put together from parts of others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx, nn

SCOPE = "scope"  # under which an operation notes the path of the module that it runs in


class Composed(nn.Module):
    """Runs a graph of operations on its own layers.

    `operations` lead from images to scores; each has its `SCOPE`. `blocks` are the names of the
    coarse places to cut: the first is the cut `all`, the last the cut `head`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = fx.Graph()
        self.blocks: tuple[str, ...] = ()

    def forward(self, images: Tensor) -> Tensor:
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
