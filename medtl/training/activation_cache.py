"""Activation cache: decides what is cached at a cut, and computes it once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from medtl.cache import CannotKeepError, content_key
from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.flops import cut_costs
from medtl.networks.partition import Cut, stages
from medtl.networks.pretrained import Backbone
from medtl.progress import progress
from medtl.training import activation_store
from medtl.training.activation_store import Kept, OutOfRangeError
from medtl.training.device import autocast
from medtl.training.loaders import PASS_BATCH, ComputedLoader

FORMAT = 2  # of what is kept; a new number makes everything anew

WORTH = 50
"""Operations saved for each byte kept, from which on keeping pays. Ours; not measured on each
machine, for a decision by the clock would make the results depend on it."""


class ActivationCache:
    """Keeps activations of one backbone on one data set, in this process and on disk.

    `policy` is `auto` (kept where it pays and fits the budget), `always`, or `never`. `notes`
    says, cut by cut, what was decided. `key` is what all that crosses any cut depends on: weights,
    preprocessing and images.
    """

    def __init__(self, backbone: Backbone, images: str, policy: str) -> None:
        self.notes: dict[str, str] = {}
        self._backbone = backbone
        self.key = (FORMAT, backbone.digest(), dataclasses.astuple(backbone.preprocessing), images)
        self._policy = policy
        self._blocks = cut_points(backbone.network, "blocks")
        self._expected: set[int] = set()
        self._open: dict[str, Kept | None] = {}
        self._declined: set[tuple[int, ...]] = set()

    def expect(self, points: Iterable[CutPoint]) -> None:
        """Says which cuts will be asked for, so that a pass to a deep one also keeps some before.

        Of those on its way a pass keeps one, the deepest, in each third of the network's compute:
        no later pass has more than about a third of it to do again.
        """
        self._expected = {point.position for point in points}

    def kept(self, divided: Cut, fresh: ComputedLoader, view: int, views: int) -> Kept | None:
        """The kept view of a feed at this cut, made now if it is not there; None if not kept.

        `views` is how many views of the feed will be asked for, which is what must fit.
        """
        point = divided.point
        if self._policy == "never" or point.key == (0,) or point.key in self._declined:
            return None
        key = self._view_key(point, fresh, view)
        if key not in self._open:
            kept, agreed = activation_store.find(key), fresh.team.all_agree
            # what is kept has 16 bits, so that all keep their shares, or none
            if agreed(kept is not None or self._is_worth_it(divided, fresh, views - view + 1)):
                kept = self._made(divided, fresh, view) if kept is None else kept
            if not agreed(kept is not None):
                kept = None
            if kept is None:
                self._declined.add(point.key)
            else:
                self.notes.setdefault(point.name, "kept: computed once for all trials")
            self._open[key] = kept
        return self._open[key]

    def _is_worth_it(self, divided: Cut, fresh: ComputedLoader, views: int) -> bool:
        with FlopCounterMode(display=False) as counter:
            tensors = fresh.batch(np.arange(fresh.team.size), epoch=1)  # one image is our own
        each, operations = _bytes(tensors), counter.get_total_flops()
        if self._policy == "auto" and operations < WORTH * each:
            self.notes[divided.point.name] = (
                f"computed anew each epoch: {operations / 1e6:.0f} million operations an image "
                f"cost less than reading {each / 1e6:.2f} MB back"
            )
            return False
        images = fresh.team.share(len(fresh)) * fresh.team.neighbours  # of this machine
        needed, budget = each * images * views, activation_store.budget_bytes()
        if self._policy == "always" or activation_store.make_room(needed, budget):
            return True
        self.notes[divided.point.name] = (
            f"computed anew each epoch: {each / 1e6:.2f} MB an image, {needed / 1e9:.1f} GB in "
            f"all, is over the budget of {budget / 1e9:.1f} GB (MEDTL_CACHE_GB)"
        )
        return False

    def _made(self, divided: Cut, fresh: ComputedLoader, view: int) -> Kept | None:
        point = divided.point
        try:
            self._keep_on_the_way_to(point, fresh, view)
        except (OutOfRangeError, CannotKeepError) as error:
            reason = str(error)
        else:
            return activation_store.find(self._view_key(point, fresh, view))
        self.notes[point.name] = f"computed anew each epoch: {reason}"
        return None

    def _keep_on_the_way_to(self, point: CutPoint, fresh: ComputedLoader, view: int) -> None:
        """One pass that keeps what crosses at `point`, and at the waypoints before it."""
        begin, kept = self._deepest_before(point, fresh, view)
        waypoints = self._waypoints(begin, point)
        passed, count = self._pass(begin, kept, point, fresh, view), fresh.team.share(len(fresh))
        total = -(-len(fresh) // PASS_BATCH)
        with ExitStack() as stack:
            writers = {}
            for crossing in progress(passed, total, f"activations at {point.name}", unit="batch"):
                if not writers:
                    for place in self._fitting(waypoints, point, crossing, count):
                        key = self._view_key(place, fresh, view)
                        writing = activation_store.writing(key, count)
                        writers[place.position] = stack.enter_context(writing)
                for position, write in writers.items():
                    write(crossing[position])

    def _fitting(
        self,
        waypoints: list[CutPoint],
        point: CutPoint,
        crossing: dict[int, tuple[Tensor, ...]],
        count: int,
    ) -> list[CutPoint]:
        """`point`, and before it those of the waypoints for which there is room beside it."""
        needed = {place: _bytes(crossing[place.position]) * count for place in (*waypoints, point)}
        free = activation_store.room(activation_store.budget_bytes()) - needed[point]
        fitting = []
        for place in waypoints:
            if needed[place] <= free:
                fitting.append(place)
                free -= needed[place]
        return [*fitting, point]

    @torch.no_grad()
    def _pass(
        self, begin: int, kept: Kept | None, point: CutPoint, fresh: ComputedLoader, view: int
    ) -> Iterator[dict[int, tuple[Tensor, ...]]]:
        """What crosses at `point` and at the blocks before it, by position, in batches.

        Starts from the images, or from what is kept at block number `begin`. Between two blocks
        the activations are rounded to the 16 bits in which they are kept, so that the result is
        the same to the bit whichever block it starts from.
        """
        network, size = self._backbone.network, self._backbone.preprocessing.image_size
        places = [*self._blocks_before(point), point]
        parts = stages(network, places, size)[begin:]
        for part in parts:
            part.to(fresh.device)
        for start in range(0, len(fresh), PASS_BATCH):
            rows = np.arange(start, min(start + PASS_BATCH, len(fresh)))
            if kept is None:
                tensors = (fresh.inputs(rows, view),)
            else:
                tensors = kept.batch(fresh.team.kept(rows), fresh.device)
            crossing = {}
            for place, part in zip(places[begin:], parts, strict=True):
                with autocast(fresh.device, fresh.precision):
                    tensors = part(*tensors)
                tensors = crossing[place.position] = tuple(map(_rounded, tensors))
            yield crossing

    def _blocks_before(self, point: CutPoint) -> list[CutPoint]:
        return [block for block in self._blocks if 0 < block.position < point.position]

    def _deepest_before(
        self, point: CutPoint, fresh: ComputedLoader, view: int
    ) -> tuple[int, Kept | None]:
        """How many blocks before `point` need not be computed, and the last of them as kept."""
        blocks = self._blocks_before(point)
        for done in range(len(blocks), 0, -1):
            key = self._view_key(blocks[done - 1], fresh, view)
            kept = self._open.get(key) or activation_store.find(key)
            if kept is not None:
                return done, kept
        return 0, None

    def _waypoints(self, begin: int, point: CutPoint) -> list[CutPoint]:
        """The blocks at which a pass from block number `begin` to `point` also keeps."""
        by_third: dict[int, CutPoint] = {}
        for block in self._blocks_before(point)[begin:]:
            if block.position in self._expected:
                by_third[self._thirds[block.position]] = block
        return list(by_third.values())

    @cached_property
    def _thirds(self) -> dict[int, int]:
        """In which third of the network's compute, 0 to 2, each block begins."""
        size = self._backbone.preprocessing.image_size
        costs = cut_costs(self._backbone.network, "blocks", size)
        return {cost.point.position: int(3 * (1 - cost.trained_share)) for cost in costs}

    def _view_key(self, point: CutPoint, fresh: ComputedLoader, view: int) -> str:
        augmentation = fresh.augmentation
        changed = None if augmentation is None else (repr(augmentation), fresh.seed, view)
        return content_key(*self.key, *point.key, fresh.rows_key, fresh.precision, changed)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    """What one image of a batch takes in 16 bits."""
    return 2 * sum(tensor[0].numel() for tensor in tensors)


def _rounded(tensor: Tensor) -> Tensor:
    """As it would read back: rounded to 16 bits, images channels last."""
    tensor = tensor.half().float()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
