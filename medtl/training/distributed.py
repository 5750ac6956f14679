"""Training in several processes: rows of each rank, collectives, batch norm.

Rank r of n has the images r, r + n, r + 2n ... of every split, and caches only their activations.
The batches are those of a single process, shuffled by the same seed; each rank takes its own rows
of them. Its part of a batch varies in size and may be empty, and is weighted accordingly in the
gradient. Up to rounding, the result is that of a single process on the same batches. (Goyal et al.
2017, arXiv 1706.02677, split larger batches evenly instead.)
"""

from __future__ import annotations

import gc
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from medtl.errors import MedtlError, ParameterError
from medtl.training.checkpoints import Checkpoint, CheckpointHold
from medtl.training.losses import Findings, OneLabel

Value = TypeVar("Value")

# PyTorch's own SyncBatchNorm needs GPUs. This one needs only an all-reduce: CPUs and GPUs run the
# same code, which tests on CPUs cover.


def share_norms(module: nn.Module) -> None:
    """Replaces each batch norm in a module by a `SharedNorm` with the same parameters."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SharedNorm):
            setattr(module, name, SharedNorm.of(child))
        else:
            share_norms(child)


class SharedNorm(_BatchNorm):
    """Batch norm with statistics over the images of all processes (Ioffe & Szegedy 2015).

    In training all processes call it together; a process may have no image. In evaluation it is
    plain batch norm.
    """

    @classmethod
    def of(cls, norm: _BatchNorm) -> SharedNorm:
        """Builds the norm on the parameters and running statistics of `norm`, which it shares."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, device="meta")
        shared._parameters, shared._buffers = dict(norm._parameters), dict(norm._buffers)
        return shared.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, ...]."""
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
        tracked, momentum = self.num_batches_tracked, self.momentum
        running_mean, running_var = self.running_mean, self.running_var
        if tracked is not None and running_mean is not None and running_var is not None:
            with torch.no_grad():
                tracked += 1
                # no momentum means a cumulative average
                share = 1 / float(tracked) if momentum is None else momentum
                running_mean.lerp_(mean, share)
                running_var.lerp_(variance * count / (count - 1), share)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accepts any number of dimensions."""


class _Sum(torch.autograd.Function):
    """Sum over all processes; its gradient is the sum of the gradients of all processes."""

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


class SingleProcess:
    """Training in one process: it has every row, and collectives return their input."""

    rank, size = 0, 1
    neighbours = 1  # processes on this machine, including this one
    key: tuple[int, ...] = ()  # rank and size in cache keys; empty for one process

    def device(self, name: str) -> str:
        """Returns the device of this process for the parameter `device`."""
        return name

    def local_rows(self, rows: np.ndarray) -> np.ndarray | slice:
        """Returns the positions in `rows` [B] of this process's rows."""
        return slice(None)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """Returns this process's rows, as indices into its own cache."""
        return rows

    def share(self, count: int) -> int:
        """Returns how many of `count` rows this process has."""
        return count

    def joined(self, suffix: nn.Module) -> nn.Module:
        """Wraps `suffix` so that its gradients are those of the whole batch."""
        return suffix

    def loss(
        self, minimised: OneLabel | Findings, logits: Tensor, labels: Tensor, rows: np.ndarray
    ) -> Tensor:
        """Computes the loss of this process's `logits` in a batch with `labels` and `rows` [B].

        The mean over all processes is the loss of the batch.
        """
        return minimised.loss(logits, labels)

    def mean(self, value: float) -> float:
        """Returns the mean of `value` over the processes."""
        return value

    def all_gather(self, own: Tensor, count: int) -> Tensor:
        """Gathers [count, ...] in row order from each process's values of its `own` rows."""
        return own

    def all_agree(self, here: bool) -> bool:
        """Returns whether `here` is true in every process."""
        return here

    def broadcast(self, value: Value | None) -> Value | None:
        """Returns the value of rank 0."""
        return value

    def checkpoint(self, key: str, ends: CheckpointHold | None = None) -> Checkpoint:
        """Returns the checkpoint of the training with this key; `ends` holds its final state."""
        return Checkpoint(key, ends)

    def failure(self, error: Exception) -> str:
        """Returns the message of the process that failed first; empty if that is this one."""
        return ""


SINGLE_PROCESS = SingleProcess()


class ProcessGroup(SingleProcess):
    """Process of a process group; every process calls the same methods in the same order."""

    def __init__(self, store: dist.Store) -> None:
        self._store = store
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.key = (self.rank, self.size)

    def device(self, name: str) -> str:
        """Returns the GPU of this process, or the CPU."""
        if name.startswith("cuda:"):
            allowed = "auto, cpu or cuda where torchrun starts several processes: each has its GPU"
            raise ParameterError("device", name, allowed)
        return own_device(name)

    def local_rows(self, rows: np.ndarray) -> np.ndarray | slice:
        """Returns the positions in `rows` [B] of this process's rows."""
        return np.flatnonzero(rows % self.size == self.rank)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """Returns this process's rows, as indices into its own cache."""
        return rows[self.local_rows(rows)] // self.size

    def share(self, count: int) -> int:
        """Returns how many of `count` rows this process has."""
        return len(range(self.rank, count, self.size))

    def joined(self, suffix: nn.Module) -> nn.Module:
        """Wraps `suffix` by DistributedDataParallel, with batch norm over all processes."""
        share_norms(suffix)
        return DistributedDataParallel(suffix)

    def loss(
        self, minimised: OneLabel | Findings, logits: Tensor, labels: Tensor, rows: np.ndarray
    ) -> Tensor:
        """Computes this process's part of the loss of a batch."""
        own = labels[self.local_rows(rows)]
        if len(own) == 0:
            return logits.sum()  # 0, but the others wait for the gradients of this process
        weighs = minimised.weight(own) / minimised.weight(labels).clamp(min=1e-12)
        return self.size * weighs * minimised.loss(logits, own)

    def mean(self, value: float) -> float:
        """Returns the mean of `value` over the processes."""
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def all_gather(self, own: Tensor, count: int) -> Tensor:
        """Gathers [count, ...] in row order from each process's values of its `own` rows."""
        padded = own.new_zeros(-(-count // self.size), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]

    def all_agree(self, here: bool) -> bool:
        """Returns whether `here` is true in every process."""
        all_here = torch.tensor(int(here))
        dist.all_reduce(all_here, op=dist.ReduceOp.MIN)
        return bool(all_here)

    def broadcast(self, value: Value | None) -> Value | None:
        """Returns the value of rank 0."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def checkpoint(self, key: str, ends: CheckpointHold | None = None) -> Checkpoint:
        """Returns the checkpoint that rank 0 writes and sends to the other processes."""
        return _SharedCheckpoint(key, ends, self)

    def failure(self, error: Exception) -> str:
        """Returns the message of the process that failed first; empty if that is this one."""
        kind = "" if isinstance(error, MedtlError) else f"{type(error).__name__}: "
        line = (
            f"process {self.rank} on {socket.gethostname()}: {kind}{' '.join(str(error).split())}"
        )
        first = self._store.compare_set("failed", "", line).decode()
        return "" if first == line else first


class _SharedCheckpoint(Checkpoint):
    """Checkpoint written and loaded by rank 0, and sent to the others: they may share no disk."""

    def __init__(self, key: str, ends: CheckpointHold | None, team: ProcessGroup) -> None:
        super().__init__(key, ends)
        self._team = team

    def found(self) -> dict | None:
        return self._team.broadcast(super().found() if self._team.rank == 0 else None)

    def keep(self, epoch: int, state: Callable[[], dict]) -> None:
        if self._team.rank == 0:
            super().keep(epoch, state)

    def end(self, epoch: int, state: Callable[[], dict], score: float) -> None:
        if self._team.rank == 0:
            super().end(epoch, state, score)

    def drop(self) -> None:
        if self._team.rank == 0:
            super().drop()


def own_device(name: str) -> str:
    """Returns the device of this process on its machine for `auto`, `cpu` or `cuda`."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "cpu" if name == "auto" else name


# Only rank 0 reports errors. Another process that fails writes its message to torchrun's store and
# closes its connections; rank 0, which waits for it in a collective, then fails with that message.


LONGEST_WAIT = timedelta(hours=3)  # for another process, which may be decoding all images
LAST_WORDS = timedelta(seconds=30)  # for rank 0 to fail with another process's message

_HEARD = "heard"


@contextmanager
def joined(device: str) -> Iterator[SingleProcess]:
    """Opens the process group that torchrun started; a single process without torchrun.

    `device` is the parameter. If the block fails, only rank 0 raises the error; the other
    processes leave the block silently.

    Raises:
        SystemExit: in another process than rank 0, if it was stopped or could not report its error.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    store, rank, size = next(dist.rendezvous("env://", timeout=LONGEST_WAIT))
    store = dist.PrefixStore("medtl", store)
    backend = _with_gpus() if device != "cpu" and torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    team = ProcessGroup(store)
    try:
        with warnings.catch_warnings():
            # for 1 x 1 filters, whose memory layout is the same either way
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            yield team
    except (Exception, KeyboardInterrupt) as error:
        if rank == 0:
            raise
        if os.environ.get("MEDTL_DEBUG") == "1":
            traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            raise SystemExit(1) from None
        try:
            team.failure(error)
            # the frames of the traceback still hold the connections
            traceback.clear_frames(error.__traceback__)
            _leave()
            store.wait([_HEARD], LAST_WORDS)
        except Exception:
            raise SystemExit(1) from None
    finally:
        _leave()
        if rank == 0:
            with suppress(Exception):  # the store may have gone first
                store.set(_HEARD, "")


@contextmanager
def heard(team: SingleProcess) -> Iterator[None]:
    """Raises in this block the first failure of any process.

    Raises:
        MedtlError: another process has failed, or was lost.
    """
    try:
        yield
    except Exception as error:
        if message := team.failure(error):
            raise MedtlError(message) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise MedtlError(
                "another process of this training was lost; the same command goes on from here"
            ) from error
        raise


def _with_gpus() -> str:
    """Selects this process's GPU; returns the backends: NCCL for GPU tensors, gloo for others."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _leave() -> None:
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
