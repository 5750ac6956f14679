"""Training in several processes: rows of each rank, collectives, batch norm.

Process r of n has the images r, r + n, r + 2n ... of every split, and keeps the activations of
these alone. The batches are those of one process, shuffled by the same seed, and each process takes
what is its own of them. So its share of a batch varies in size, and may be empty; in the gradient
it counts by what it weighs. What comes out is, but for rounding, what one process makes of the same
batches. (Goyal et al. 2017, arXiv 1706.02677, part larger batches evenly instead.)
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

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from medtl.errors import MedtlError, ParameterError
from medtl.training.checkpoints import Checkpoint, CheckpointHold
from medtl.training.losses import Findings, OneLabel

# PyTorch's own SyncBatchNorm needs GPUs; this one runs wherever the processes can add up numbers,
# so that what is tested on processors is what runs on GPUs.


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


class SingleProcess:
    """One process: every row is its own, and there is nobody to ask."""

    rank, size = 0, 1
    neighbours = 1  # processes on this machine, this one among them
    key: tuple[int, ...] = ()  # what is kept by this process, beside what it is of

    def device(self, name: str) -> str:
        """The device that the parameter `device` means here."""
        return name

    def local_rows(self, rows: np.ndarray) -> np.ndarray | slice:
        """The places in `rows` [B] of those that are this process's."""
        return slice(None)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        """The rows that are this process's, numbered as this process keeps them."""
        return rows

    def share(self, count: int) -> int:
        """How many of `count` rows are this process's."""
        return count

    def joined(self, suffix: nn.Module) -> nn.Module:
        """`suffix` in a form whose gradients are those of the whole batch."""
        return suffix

    def loss(
        self, minimised: OneLabel | Findings, logits: Tensor, labels: Tensor, rows: np.ndarray
    ) -> Tensor:
        """The loss of this process's `logits` in a batch with these `labels` and `rows` [B].

        Its mean over all processes is the loss of the batch.
        """
        return minimised.loss(logits, labels)

    def mean(self, value: float) -> float:
        """The mean of what each process brings."""
        return value

    def all_gather(self, own: Tensor, count: int) -> Tensor:
        """[count, ...] in the order of the rows, of what each process has for its `own` rows."""
        return own

    def all_agree(self, here: bool) -> bool:
        """Whether it is so in every process."""
        return here

    def broadcast(self, said: object) -> object:
        """What the first process says."""
        return said

    def checkpoint(self, key: str, ends: CheckpointHold | None = None) -> Checkpoint:
        """The checkpoint of the training of this key, held by `ends` when that has ended."""
        return Checkpoint(key, ends)

    def failure(self, error: Exception) -> str:
        """The line of the process that failed first; empty where this one did, by this error."""
        return ""


SINGLE_PROCESS = SingleProcess()


class ProcessGroup(SingleProcess):
    """A process among those of a process group; each method is called by all of them in turn."""

    def __init__(self, store: dist.Store) -> None:
        self._store = store
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self.key = (self.rank, self.size)

    def device(self, name: str) -> str:
        if name.startswith("cuda:"):
            allowed = "auto, cpu or cuda where torchrun starts several processes: each has its GPU"
            raise ParameterError("device", name, allowed)
        return own_device(name)

    def local_rows(self, rows: np.ndarray) -> np.ndarray | slice:
        return np.flatnonzero(rows % self.size == self.rank)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.local_rows(rows)] // self.size

    def share(self, count: int) -> int:
        return len(range(self.rank, count, self.size))

    def joined(self, suffix: nn.Module) -> nn.Module:
        share_norms(suffix)
        return DistributedDataParallel(suffix)

    def loss(
        self, minimised: OneLabel | Findings, logits: Tensor, labels: Tensor, rows: np.ndarray
    ) -> Tensor:
        own = labels[self.local_rows(rows)]
        if len(own) == 0:
            return logits.sum()  # 0, but the others wait for the gradients of this process too
        weighs = minimised.weight(own) / minimised.weight(labels).clamp(min=1e-12)
        return self.size * weighs * minimised.loss(logits, own)

    def mean(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def all_gather(self, own: Tensor, count: int) -> Tensor:
        padded = own.new_zeros(-(-count // self.size), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]

    def all_agree(self, here: bool) -> bool:
        all_here = torch.tensor(int(here))
        dist.all_reduce(all_here, op=dist.ReduceOp.MIN)
        return bool(all_here)

    def broadcast(self, said: object) -> object:
        spoken = [said]
        dist.broadcast_object_list(spoken, src=0)
        return spoken[0]

    def checkpoint(self, key: str, ends: CheckpointHold | None = None) -> Checkpoint:
        return _SharedCheckpoint(key, ends, self)

    def failure(self, error: Exception) -> str:
        kind = "" if isinstance(error, MedtlError) else f"{type(error).__name__}: "
        line = (
            f"process {self.rank} on {socket.gethostname()}: {kind}{' '.join(str(error).split())}"
        )
        first = self._store.compare_set("failed", "", line).decode()
        return "" if first == line else first


class _SharedCheckpoint(Checkpoint):
    """Written by the first process alone, and read to all of them: they may share no disk."""

    def __init__(self, key: str, ends: CheckpointHold | None, team: ProcessGroup) -> None:
        super().__init__(key, ends)
        self._team = team

    def found(self) -> dict | None:
        return self._team.broadcast(super().found() if self._team.rank == 0 else None)

    def keep(self, epoch: int, state: Callable[[], dict]) -> None:
        if self._team.rank == 0:
            super().keep(epoch, state)

    def end(self, epoch: int, state: Callable[[], dict]) -> None:
        if self._team.rank == 0:
            super().end(epoch, state)

    def drop(self) -> None:
        if self._team.rank == 0:
            super().drop()


def own_device(name: str) -> str:
    """What `auto`, `cpu` or `cuda` means for this process among those of its machine."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return "cpu" if name == "auto" else name


# The first process speaks for all of them. Where another fails it leaves its line in the store that
# torchrun keeps, and lets go of its connections; the first, which has waited for it, finds the line
# there and fails with it.


LONGEST_WAIT = timedelta(hours=3)  # for another process: it may be reading all images for the first
LAST_WORDS = timedelta(seconds=30)  # that the first process has to end with another's line

_HEARD = "heard"


@contextmanager
def joined(device: str) -> Iterator[SingleProcess]:
    """The team of this process while the block runs; alone where torchrun did not start several.

    `device` is the parameter. When the block fails, the first process raises the error; the others
    leave the block in silence, for it is the first that says it.

    Raises:
        SystemExit: not in the first: the process was stopped, or the first did not hear it fail.
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
            # of filters of one pixel: their bytes lie in the same order all the same
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
            # whatever still holds the connections is in the frames that have failed
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
    """Makes the first failure of any process the failure of this block.

    Raises:
        MedtlError: another process has failed, or was lost.
    """
    try:
        yield
    except Exception as error:
        if said := team.failure(error):
            raise MedtlError(said) from error
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise MedtlError(
                "another process of this training was lost; the same command goes on from here"
            ) from error
        raise


def _with_gpus() -> str:
    """Tensors of GPUs by NCCL, all else by gloo; the GPU of this process's number is its own."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"


def _leave() -> None:
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
