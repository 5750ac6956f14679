"""One training in several processes: which rows are whose, and what they tell each other.

Process r of n has the images r, r + n, r + 2n ... of every split, and keeps the activations of
these alone. The batches are those of one process, shuffled by the same seed, and each process takes
what is its own of them. So its share of a batch varies in size, and may be empty; in the gradient
it counts by what it weighs. What comes out is, but for rounding, what one process makes of the same
batches. (Goyal et al. 2017, arXiv 1706.02677, part larger batches evenly instead.)
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from medtl.errors import MedtlError, ParameterError
from medtl.training.checkpoints import Checkpoint, Ends
from medtl.training.objectives import Findings, OneLabel
from medtl.training.shared_norm import share_norms


class Alone:
    """One process: every row is its own, and there is nobody to ask."""

    rank, size = 0, 1
    neighbours = 1  # processes on this machine, this one among them
    key: tuple[int, ...] = ()  # what is kept by this process, beside what it is of

    def device(self, name: str) -> str:
        """The device that the parameter `device` means here."""
        return name

    def mine(self, rows: np.ndarray) -> np.ndarray | slice:
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

    def gathered(self, own: Tensor, count: int) -> Tensor:
        """[count, ...] in the order of the rows, of what each process has for its `own` rows."""
        return own

    def agreed(self, here: bool) -> bool:
        """Whether it is so in every process."""
        return here

    def told(self, said: object) -> object:
        """What the first process says."""
        return said

    def checkpoint(self, key: str, ends: Ends | None = None) -> Checkpoint:
        """The checkpoint of the training of this key, held by `ends` when that has ended."""
        return Checkpoint(key, ends)

    def failure(self, error: Exception) -> str:
        """The line of the process that failed first; empty where this one did, by this error."""
        return ""


ALONE = Alone()


class Together(Alone):
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

    def mine(self, rows: np.ndarray) -> np.ndarray | slice:
        return np.flatnonzero(rows % self.size == self.rank)

    def kept(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.mine(rows)] // self.size

    def share(self, count: int) -> int:
        return len(range(self.rank, count, self.size))

    def joined(self, suffix: nn.Module) -> nn.Module:
        share_norms(suffix)
        return DistributedDataParallel(suffix)

    def loss(
        self, minimised: OneLabel | Findings, logits: Tensor, labels: Tensor, rows: np.ndarray
    ) -> Tensor:
        own = labels[self.mine(rows)]
        if len(own) == 0:
            return logits.sum()  # 0, but the others wait for the gradients of this process too
        weighs = minimised.weight(own) / minimised.weight(labels).clamp(min=1e-12)
        return self.size * weighs * minimised.loss(logits, own)

    def mean(self, value: float) -> float:
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.size

    def gathered(self, own: Tensor, count: int) -> Tensor:
        padded = own.new_zeros(-(-count // self.size), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count]

    def agreed(self, here: bool) -> bool:
        all_here = torch.tensor(int(here))
        dist.all_reduce(all_here, op=dist.ReduceOp.MIN)
        return bool(all_here)

    def told(self, said: object) -> object:
        spoken = [said]
        dist.broadcast_object_list(spoken, src=0)
        return spoken[0]

    def checkpoint(self, key: str, ends: Ends | None = None) -> Checkpoint:
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

    def __init__(self, key: str, ends: Ends | None, team: Together) -> None:
        super().__init__(key, ends)
        self._team = team

    def found(self) -> dict | None:
        return self._team.told(super().found() if self._team.rank == 0 else None)

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
