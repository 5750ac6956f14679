"""Estimated duration of a search, from costs that are measured before it.

A measured training step is divided by the operations, and an update of the weights by the
parameters, from each cut-off on. The frozen part is computed once for each view where it is cached.
Half of the trials that may be pruned are; no other training is taken to stop early.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from medtl.errors import MedtlError
from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.flops import CutCost, cut_costs
from medtl.networks.graph import trace
from medtl.networks.partition import borders, cut
from medtl.training.activation_cache import pays
from medtl.training.activation_store import budget_bytes
from medtl.training.epoch_budget import Budget
from medtl.training.learner import TransferLearner
from medtl.training.linear_head import linear_layer
from medtl.tuning.search_space import HybridSpace, OneSpace
from medtl.tuning.study import PRUNED_FROM, TENTHS, UNPRUNED, Schedule
from medtl.tuning.trial_costs import TrialCosts

TRIAL = 0.5  # seconds of a trial's run, and of its copy of the network
EPOCH = 0.03  # seconds of an epoch's scores and their logging
ITERATIONS = 400  # of the solver, for a linear head
VIEWS = 0.3  # share of these iterations for a head on augmented views
LARGEST_HEAD = 0.05  # share of the operations up to which the trained part may be a linear head
PRUNED = 0.5  # share of the trials that end early, once the pruner has trials to compare with


def trial_seconds(
    transfer: TransferLearner, space: OneSpace, costs: TrialCosts
) -> dict[str, float]:
    """Estimates the seconds of an unpruned trial at each cut-off of a network."""
    backbone, settings = transfer.backbone, transfer.settings
    parts = cut_costs(backbone.network, "layers", transfer.image_size)
    train, valid = (len(transfer.labels(split)) for split in ("train", "valid"))
    batch = min(settings.batch_size, train)
    steps = max(1, train // settings.batch_size)
    seconds = {}
    for name in space.cutoffs:
        point = resolve(backbone.network, backbone.architecture, name)
        cost = _at(parts, point)
        share = cost.trained_share
        frozen = (1 - share) * costs.forward
        if isinstance(space, HybridSpace):
            each = (train + valid) * frozen
        elif _is_solved(transfer, point, share):
            views = transfer.head_views
            solved = ITERATIONS * (1 + (1 + views) * VIEWS if views else 1)
            each = (train + valid) * frozen + views * train * (frozen + costs.reading)
            each += solved * train * costs.product
        else:
            measured = _at(parts, resolve(backbone.network, backbone.architecture, costs.cutoff))
            epochs = settings.epochs or Budget.of(max(share, 1e-6), steps).epochs
            views = 1 if transfer.augmentation is None else min(epochs, settings.views)
            passes = 1
            if not _is_kept(transfer, point, cost, views):
                views = passes = epochs
            update = costs.update * cost.trained_parameters / measured.trained_parameters
            step = batch * costs.step * share / max(measured.trained_share, 1e-6) + update
            each = views * train * (frozen + costs.reading) + passes * valid * frozen
            each += epochs * (steps * step + valid * share * costs.forward + EPOCH)
        seconds[name] = TRIAL + each
    return seconds


def _at(parts: Sequence[CutCost], point: CutPoint) -> CutCost:
    """Returns the cost of the last layer at or before a cut point."""
    return next(part for part in reversed(parts) if part.point.position <= point.position)


def _is_kept(transfer: TransferLearner, point: CutPoint, cost: CutCost, views: int) -> bool:
    """Returns whether the activations at a cut will be cached."""
    policy = transfer.settings.keep
    if policy == "never" or point.key == (0,):
        return False
    graph = trace(transfer.backbone.network)
    try:
        (border,) = borders(graph, [point], transfer.image_size)
    except MedtlError:  # the trial will say so
        return False
    each = 2 * sum(map(math.prod, border.shapes))
    if policy == "always":
        return True
    needed = each * len(transfer.labels("train")) * views
    return pays(cost.frozen_flops, each) and needed <= budget_bytes()


def _is_solved(transfer: TransferLearner, point: CutPoint, share: float) -> bool:
    """Returns whether the trained part is a linear head that is solved without epochs."""
    if transfer.settings.epochs or share > LARGEST_HEAD:
        return False
    return (
        linear_layer(cut(transfer.backbone.network, point, transfer.image_size).suffix) is not None
    )


def search_seconds(
    schedule: Schedule,
    done: int,
    first: Sequence[float],
    by_network: Iterable[Mapping[str, float]],
) -> float:
    """Estimates the seconds of the remaining trials of a search, run one after the other.

    Args:
        schedule: number of trials, pruner and limit of time.
        done: finished trials.
        first: seconds of the queued trials, in order.
        by_network: seconds of a trial at each cut-off, of each network.

    >>> none = Schedule(trials=4, timeout=0, pruner="none", seed=0)
    >>> search_seconds(none, 1, [9.0], [{"conv1": 3.0, "fc": 1.0}])
    13.0
    """
    means = [sum(own.values()) / len(own) for own in by_network]
    mean = sum(means) / len(means)
    pruned_at = (PRUNED_FROM + 1) / TENTHS
    kept = 1.0 if schedule.pruner == "none" else 1 - PRUNED * (1 - pruned_at)
    total = 0.0
    for number in range(done, schedule.trials):
        seconds = first[number - done] if number - done < len(first) else mean
        total += seconds if number < UNPRUNED else seconds * kept
    return min(total, schedule.timeout) if schedule.timeout else total
