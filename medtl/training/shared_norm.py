"""Batch norm over a batch whose images are in several processes.

PyTorch's own SyncBatchNorm needs GPUs; this one runs wherever the processes can add up numbers, so
that what is tested on processors is what runs on GPUs.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def share_norms(module: nn.Module) -> None:
    """Puts a `SharedNorm` of the same parameters in the place of each batch norm inside."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SharedNorm):
            setattr(module, name, SharedNorm.of(child))
        else:
            share_norms(child)


class SharedNorm(_BatchNorm):
    """Batch norm with the statistics of the images of all processes (Ioffe & Szegedy 2015).

    In training all processes call it together; one may have no image. In evaluation it is batch
    norm as ever.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> SharedNorm:
        """The norm on the very parameters and running statistics of another."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, device="meta")
        shared._parameters, shared._buffers = dict(norm._parameters), dict(norm._buffers)
        return shared.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        values = x.float()
        here = values.new_tensor([x.numel() / x.shape[1]])
        sums, count = _Sum.apply(torch.cat([values.sum(axes), here])).split([x.shape[1], 1])
        mean = sums / count
        # in two steps: the mean of squares less the square of the mean loses digits
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions will do."""


class _Sum(torch.autograd.Function):
    """The sum over all processes; each one's gradient is the sum of all gradients of it."""

    @staticmethod
    def forward(ctx, here: Tensor) -> Tensor:
        total = here.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
