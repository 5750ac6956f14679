"""Activation cache: decides which cuts are cached, and computes their activations once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from medtl.cache import CannotKeepError, content_key
from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.flops import cut_costs, flop_counter
from medtl.networks.partition import Cut, stages
from medtl.networks.pretrained import Backbone
from medtl.progress import progress
from medtl.training import activation_store
from medtl.training.activation_store import Kept, OutOfRangeError
from medtl.training.device import autocast
from medtl.training.loaders import PASS_BATCH, ComputedLoader

FORMAT = 2  # of the entries; a new number invalidates all of them

WORTH = 50
"""Least operations saved for each cached byte. Ours; not measured on each machine, since results
must not depend on the clock."""


def pays(operations: int, size: int) -> bool:
    """Returns whether reading `size` bytes is cheaper than computing them."""
    return operations >= WORTH * size


class ActivationCache:
    """Activations of one backbone on one data set, cached on disk.

    Attributes:
        notes: decision and its reason, by cut-off.
        key: everything that the activations of any cut depend on: weights, preprocessing, images.
    """

    def __init__(self, backbone: Backbone, images: str, policy: str) -> None:
        """Opens the cache.

        Args:
            backbone: network whose activations are cached.
            images: fingerprint of the data set.
            policy: `auto` (cached where it pays and fits the budget), `always` or `never`.
        """
        self.notes: dict[str, str] = {}
        self._backbone = backbone
        self.key = (FORMAT, backbone.digest(), backbone.preprocessing.key, images)
        self._policy = policy
        self._blocks = cut_points(backbone.network, "blocks")
        self._expected: set[int] = set()
        self._open: dict[str, Kept | None] = {}
        self._declined: set[tuple[int, ...]] = set()

    def expect(self, points: Iterable[CutPoint]) -> None:
        """Registers the cuts of a search, so that a pass to a deep cut also caches earlier ones.

        A pass caches the deepest registered cut in each third of the network's compute: no later
        pass repeats more than about a third of it.
        """
        self._expected = {point.position for point in points}

    def kept(self, divided: Cut, fresh: ComputedLoader, view: int, views: int) -> Kept | None:
        """Returns a cached view of a loader at this cut, computed if missing; None if not cached.

        `views` is the number of views that the training uses: all of them must fit.
        """
        point = divided.point
        if self._policy == "never" or point.key == (0,) or point.key in self._declined:
            return None
        key = self._view_key(point, fresh, view)
        if key not in self._open:
            kept, agreed = activation_store.find(key), fresh.team.all_agree
            # cached activations are rounded to 16 bits, so all processes must cache or none
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
        each = 2 * sum(map(math.prod, divided.shapes))  # bytes of an image in 16 bits
        if self._policy == "auto":
            with flop_counter() as counter:
                fresh.batch(np.arange(fresh.team.size), epoch=1)  # one image a process
            if not pays(operations := counter.get_total_flops(), each):
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
        """Runs one pass that caches the activations at `point` and at the waypoints before it."""
        begin, kept = self._deepest_before(point, fresh, view)
        waypoints = self._waypoints(begin, point)
        passed, count = self._pass(begin, kept, point, fresh, view), fresh.team.share(len(fresh))
        total = -(-len(fresh) // PASS_BATCH)
        with ExitStack() as stack:
            writers: dict[int, Callable[[tuple[Tensor, ...]], None]] = {}
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
        """Returns the waypoints that fit into the budget beside `point`, and `point` last."""
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
        """Yields the activations at `point` and at the blocks before it, by position, in batches.

        Starts from the images, or from the cached block number `begin`. Between two blocks the
        activations are rounded to the 16 bits of the cache, so that the result is the same to the
        bit whichever block it starts from.
        """
        network, size = self._backbone.network, self._backbone.preprocessing.image_size
        places = [*self._blocks_before(point), point]
        parts = stages(network, places, size)[begin:]
        for part in parts:
            part.to(fresh.device)
        for start in range(0, len(fresh), PASS_BATCH):
            rows = np.arange(start, min(start + PASS_BATCH, len(fresh)))
            tensors: tuple[Tensor, ...]
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
        """Returns the number of blocks before `point` to skip, and the cached last one of them."""
        blocks = self._blocks_before(point)
        for done in range(len(blocks), 0, -1):
            key = self._view_key(blocks[done - 1], fresh, view)
            kept = self._open.get(key) or activation_store.find(key)
            if kept is not None:
                return done, kept
        return 0, None

    def _waypoints(self, begin: int, point: CutPoint) -> list[CutPoint]:
        """Returns the blocks that a pass from block number `begin` to `point` also caches."""
        by_third: dict[int, CutPoint] = {}
        for block in self._blocks_before(point)[begin:]:
            if block.position in self._expected:
                by_third[self._thirds[block.position]] = block
        return list(by_third.values())

    @cached_property
    def _thirds(self) -> dict[int, int]:
        """Third of the network's compute (0 to 2) in which each block begins, by position."""
        size = self._backbone.preprocessing.image_size
        costs = cut_costs(self._backbone.network, "blocks", size)
        return {cost.point.position: int(3 * (1 - cost.trained_share)) for cost in costs}

    def _view_key(self, point: CutPoint, fresh: ComputedLoader, view: int) -> str:
        augmentation = fresh.augmentation
        changed = None if augmentation is None else (repr(augmentation), fresh.seed, view)
        return content_key(*self.key, *point.key, fresh.rows_key, fresh.precision, changed)


def _bytes(tensors: tuple[Tensor, ...]) -> int:
    """Returns the bytes of one image of a batch in 16 bits."""
    return 2 * sum(tensor[0].numel() for tensor in tensors)


def _rounded(tensor: Tensor) -> Tensor:
    """Rounds to 16 bits, as the cache does; 4-D tensors become channels last."""
    tensor = tensor.half().float()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
