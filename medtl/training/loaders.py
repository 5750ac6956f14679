"""Loaders of batches at a cut: from cached activations, or computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from medtl.cache import content_key
from medtl.networks.preprocessing import Preprocessing, network_input
from medtl.training.activation_store import Kept
from medtl.training.augmentation import Augmentation, augmented
from medtl.training.device import autocast
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess
from medtl.training.resident import Rows

PASS_BATCH = 64  # images in one step of a pass without gradients


class Images(Protocol):
    """Source of stored pixels, as a data set is."""

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Returns the pixels [B, C, S, S] of these images."""
        ...


class Loader(Protocol):
    """Batches for the training loop, by rows 0..N-1.

    A process of a group gets only its own rows of each batch.
    """

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        """Returns the tensors at the cut, each [B, ...], of these rows; `epoch` counts from 1."""
        ...


@dataclass(frozen=True)
class ComputedLoader:
    """Augments the pixels and runs the prefix for each batch.

    Equal seed, epoch and rows give equal images.
    """

    source: Images
    indices: np.ndarray
    prefix: nn.Module
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    precision: str
    device: torch.device
    team: SingleProcess = SINGLE_PROCESS

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def rows_key(self) -> str:
        """Cache key of this rank's rows."""
        return content_key(self.indices.tolist(), *self.team.key)

    @torch.no_grad()
    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        """Returns the tensors at the cut, computed."""
        images = self.inputs(rows, epoch)
        with autocast(self.device, self.precision):
            return tuple(tensor.float() for tensor in self.prefix(images))

    def inputs(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Returns the input of the network [B, 3, S, S] (cases: [B, M x 3, S, S]) of own rows."""
        mine = self.team.local_rows(rows)
        if self.augmentation is None:
            images = self._images(rows[mine])
        else:
            # drawn for the whole batch: an image changes as it would in a single process
            images = self._augmented(rows, epoch, self.augmentation)[mine]
        return network_input(images, self.preprocessing)

    def _images(self, rows: np.ndarray) -> Tensor:
        pixels, depth = self._pixels
        return pixels.on(self.device, rows).float().div_(depth)

    @cached_property
    def _pixels(self) -> tuple[Rows, float]:
        """Stored pixels of the images, and their largest possible value."""
        stored = self.source.images(self.indices[:1]).dtype
        rows = Rows(lambda rows: self.source.images(self.indices[rows]), len(self.indices))
        return rows, float(np.iinfo(stored).max)

    def _augmented(self, rows: np.ndarray, epoch: int, augmentation: Augmentation) -> Tensor:
        generator = torch.Generator(self.device)
        state = np.random.SeedSequence([self.seed, epoch, int(rows[0]), len(rows)])
        generator.manual_seed(int(state.generate_state(1)[0]))
        return augmented(self._images(rows), augmentation, generator)


@dataclass(frozen=True)
class SubsetLoader:
    """Some rows of a loader, renumbered from 0; they share the cache of the whole loader."""

    whole: Loader
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        """Returns the tensors at the cut from the whole loader."""
        return self.whole.batch(self.rows[rows], epoch)


@dataclass(frozen=True)
class CachedLoader:
    """Cached activations of a loader, one view an epoch in turn; computed if none are cached.

    `view(number)` returns the cached view of a number from 1, and computes it at the first call.
    """

    fresh: ComputedLoader
    view: Callable[[int], Kept | None]
    views: int

    def __len__(self) -> int:
        return len(self.fresh)

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        """Returns the tensors at the cut, from the cache if it has them."""
        kept = self.view((epoch - 1) % self.views + 1)
        if kept is None:
            return self.fresh.batch(rows, epoch)
        return kept.batch(self.fresh.team.kept(rows), self.fresh.device)
