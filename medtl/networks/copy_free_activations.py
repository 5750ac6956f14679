"""In-place activations in training, without the copies that autograd makes of their input.

PyTorch's in-place ReLU6 overwrites its input but saves a copy of it for the backward pass: one more
read and write of each activation, and one more tensor in memory. The output serves as well as the
input there, and the next layer saves the output anyway. In-place hard swish and SiLU need their
input, so computing them out of place avoids the copy. Values and gradients are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from medtl.networks.graph import path_of

_OUT_OF_PLACE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Hardsigmoid: F.hardsigmoid,
    nn.Hardswish: F.hardswish,
    nn.Mish: F.mish,
    nn.SiLU: F.silu,
}


def relu6(x: Tensor) -> Tensor:
    """Clamps `x`, of any shape, to 0..6 in place; the backward pass needs only the result."""
    return _Relu6.apply(x)


class _Relu6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        F.relu6(x, inplace=True)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: torch.autograd.function.BackwardCFunction, gradient: Tensor) -> Tensor:
        # 0 where the result is a bound: exactly where the input is no more than 0 or no less than 6
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, result, 0.0, 6.0)


def without_copies(operations: fx.GraphModule) -> fx.GraphModule:
    """Changes `operations` so that no input of an in-place activation is copied in training.

    The activations become functions; the modules, which have no parameters, belong to the network
    and are not changed.
    """
    modules = dict(operations.named_modules())
    for node in operations.graph.nodes:
        if node.op != "call_module":
            continue
        module = modules[path_of(node)]
        if getattr(module, "inplace", False) and (function := _function(module)) is not None:
            node.op, node.target, node.kwargs = "call_function", function, {}
    operations.delete_all_unused_submodules()
    operations.recompile()
    return operations


def _function(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    return relu6 if type(module) is nn.ReLU6 else _OUT_OF_PLACE.get(type(module))
