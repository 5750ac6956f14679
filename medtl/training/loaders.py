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
from medtl.networks.preprocessing import Preprocessing, network_input, unit_images
from medtl.training.activation_store import Kept
from medtl.training.augmentation import Augmentation, augmented
from medtl.training.device import autocast
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess

PASS_BATCH = 64  # images in one step of a pass without gradients


class Images(Protocol):
    """Anything that gives stored pixels [B, C, S, S] for indices, as a data set does."""

    def images(self, indices: np.ndarray) -> np.ndarray: ...


class Loader(Protocol):
    """What the training loop reads: rows 0..N-1, an epoch from 1.

    Of the rows of a batch a process is given those that are its own.
    """

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class ComputedLoader:
    """Pixels through augmentation and the prefix, anew for each batch.

    The same seed, epoch and rows give the same images.
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
        """Stands for the rows of this process in keys; made once, for every batch asks for it."""
        return content_key(self.indices.tolist(), *self.team.key)

    @torch.no_grad()
    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        images = self.inputs(rows, epoch)
        with autocast(self.device, self.precision):
            return tuple(tensor.float() for tensor in self.prefix(images))

    def inputs(self, rows: np.ndarray, epoch: int) -> Tensor:
        """The network's input [B, 3, S, S] (of cases [B, M x 3, S, S]) for our own of these."""
        mine = self.team.local_rows(rows)
        if self.augmentation is None:
            images = self._images(rows[mine])
        else:
            # drawn for the whole batch: an image is changed as in one process alone
            images = self._augmented(self._images(rows), rows, epoch)[mine]
        return network_input(images, self.preprocessing)

    def _images(self, rows: np.ndarray) -> Tensor:
        return unit_images(self.source.images(self.indices[rows]), self.device)

    def _augmented(self, images: Tensor, rows: np.ndarray, epoch: int) -> Tensor:
        generator = torch.Generator()
        state = np.random.SeedSequence([self.seed, epoch, int(rows[0]), len(rows)])
        generator.manual_seed(int(state.generate_state(1)[0]))
        return augmented(images, self.augmentation, generator)


@dataclass(frozen=True)
class SubsetLoader:
    """Some rows of a feed, numbered anew from 0: what is kept of the whole feed serves them too."""

    whole: Loader
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        return self.whole.batch(self.rows[rows], epoch)


@dataclass(frozen=True)
class CachedLoader:
    """What was kept of a fresh feed, a view an epoch in turn; afresh where nothing is kept.

    `view(number)` gives the view of a number from 1, and makes it when it is first asked for.
    """

    fresh: ComputedLoader
    view: Callable[[int], Kept | None]
    views: int

    def __len__(self) -> int:
        return len(self.fresh)

    def batch(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, ...]:
        kept = self.view((epoch - 1) % self.views + 1)
        if kept is None:
            return self.fresh.batch(rows, epoch)
        return kept.batch(self.fresh.team.kept(rows), self.fresh.device)
