"""The keeper: decides whether what crosses a cut is kept, and computes it only once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from medtl.keep import key_of
from medtl.networks.backbone import Backbone
from medtl.networks.cut import Cut, stages
from medtl.networks.cutpoints import CutPoint, cut_points
from medtl.progress import progress
from medtl.training import activations
from medtl.training.activations import Kept, OutOfRangeError
from medtl.training.feeds import PASS_BATCH, FreshFeed
from medtl.training.hardware import autocast

FORMAT = 1  # of what is kept; a new number makes everything anew


class Keeper:
    """Keeps activations of one backbone on one data set, in this process and on disk.

    `policy` is `auto` (kept where it fits the budget), `always`, or `never`. `notes` says, cut
    by cut, what was decided.
    """

    def __init__(self, backbone: Backbone, images: str, policy: str) -> None:
        self.notes: dict[str, str] = {}
        self._backbone = backbone
        self._key = (FORMAT, backbone.digest(), dataclasses.astuple(backbone.preprocessing), images)
        self._policy = policy
        self._blocks = cut_points(backbone.network, "blocks")
        self._open: dict[str, Kept | None] = {}
        self._declined: set[int] = set()

    def kept(self, divided: Cut, fresh: FreshFeed, view: int, views: int) -> Kept | None:
        """The kept view of a feed at this cut, made now if it is not there; None if not kept.

        `views` is how many views of the feed will be asked for, which is what must fit.
        """
        point = divided.point
        if self._policy == "never" or point.position == 0 or point.position in self._declined:
            return None
        key = self._view_key(point, fresh, view)
        if key not in self._open:
            kept = activations.find(key)
            if kept is None and self._fits(divided, fresh, views - view + 1):
                kept = self._made(key, divided, fresh, view)
            if kept is None:
                self._declined.add(point.position)
            else:
                self.notes.setdefault(point.name, "kept: computed once for all trials")
            self._open[key] = kept
        return self._open[key]

    def _fits(self, divided: Cut, fresh: FreshFeed, views: int) -> bool:
        tensors = fresh.batch(np.arange(1), epoch=1)
        each = 2 * sum(tensor[0].numel() for tensor in tensors)
        needed, budget = each * len(fresh) * views, activations.budget_bytes()
        if self._policy == "always" or activations.make_room(needed, budget):
            return True
        self.notes[divided.point.name] = (
            f"computed anew each epoch: {each / 1e6:.2f} MB an image, {needed / 1e9:.1f} GB in "
            f"all, is over the budget of {budget / 1e9:.1f} GB (MEDTL_CACHE_GB)"
        )
        return False

    def _made(self, key: str, divided: Cut, fresh: FreshFeed, view: int) -> Kept | None:
        batches = self._pass(divided.point, fresh, view)
        total = -(-len(fresh) // PASS_BATCH)
        what = f"activations at {divided.point.name}"
        try:
            return activations.keep(key, progress(batches, total, what, unit="batch"), len(fresh))
        except OutOfRangeError as error:
            reason = str(error)
        except OSError as error:
            reason = f"the disk refused them ({error.strerror or error})"
        self.notes[divided.point.name] = f"computed anew each epoch: {reason}"
        return None

    @torch.no_grad()
    def _pass(self, point: CutPoint, fresh: FreshFeed, view: int) -> Iterator[tuple[Tensor, ...]]:
        """What crosses at `point`, in batches, from the deepest kept block before it.

        Between two blocks the activations are rounded to the 16 bits in which they are kept, so
        that the result is the same to the bit whichever block it starts from.
        """
        blocks = [block for block in self._blocks if 0 < block.position < point.position]
        begin, kept = self._deepest(blocks, fresh, view)
        network, size = self._backbone.network, self._backbone.preprocessing.image_size
        parts = stages(network, [*blocks, point], size)[begin:]
        for part in parts:
            part.to(fresh.device)
        for start in range(0, len(fresh), PASS_BATCH):
            rows = np.arange(start, min(start + PASS_BATCH, len(fresh)))
            if kept is None:
                tensors = (fresh.inputs(rows, view),)
            else:
                tensors = kept.batch(rows, fresh.device)
            for part in parts:
                with autocast(fresh.device, fresh.precision):
                    tensors = part(*tensors)
                tensors = tuple(map(_rounded, tensors))
            yield tensors

    def _deepest(
        self, blocks: list[CutPoint], fresh: FreshFeed, view: int
    ) -> tuple[int, Kept | None]:
        """The deepest of `blocks` that is kept, and how many of them need not be computed."""
        for done in range(len(blocks), 0, -1):
            key = self._view_key(blocks[done - 1], fresh, view)
            kept = self._open.get(key) or activations.find(key)
            if kept is not None:
                return done, kept
        return 0, None

    def _view_key(self, point: CutPoint, fresh: FreshFeed, view: int) -> str:
        augmentation = fresh.augmentation
        changed = None if augmentation is None else (repr(augmentation), fresh.seed, view)
        rows = key_of(fresh.indices.tolist())
        return key_of(*self._key, point.position, rows, fresh.precision, changed)


def _rounded(tensor: Tensor) -> Tensor:
    """As it would read back: rounded to 16 bits, images channels last."""
    tensor = tensor.half().float()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
