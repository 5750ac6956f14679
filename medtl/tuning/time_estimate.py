"""Estimated duration of a search, from the measured pass of the layer probe.

A training step costs three forward passes of the trained part: one forward, two backward. The
frozen part is computed once for each view. Half of the trials that may be pruned are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.flops import cut_costs
from medtl.networks.partition import cut
from medtl.training.epoch_budget import Budget
from medtl.training.learner import TransferLearner
from medtl.training.linear_head import linear_layer
from medtl.tuning.search_space import HybridSpace, OneSpace
from medtl.tuning.study import PRUNED_FROM, TENTHS, UNPRUNED, Schedule

STEP = 3  # forward passes of the trained part that a training step costs
LARGEST_HEAD = 0.05  # share of the operations up to which the trained part may be a linear head
PRUNED = 0.5  # share of the trials that end early, once the pruner has trials to compare with


def trial_seconds(
    transfer: TransferLearner, space: OneSpace, seconds_per_image: float
) -> dict[str, float]:
    """Estimates the seconds of an unpruned trial at each cut-off of a network.

    `seconds_per_image` is the time of a forward pass of the whole network, without gradients.
    """
    backbone, settings = transfer.backbone, transfer.settings
    costs = cut_costs(backbone.network, "layers", transfer.image_size)
    train, valid = len(transfer.labels("train")), len(transfer.labels("valid"))
    steps = max(1, train // settings.batch_size)
    seconds = {}
    for name in space.cutoffs:
        point = resolve(backbone.network, backbone.architecture, name)
        share = next(
            cost.trained_share for cost in reversed(costs) if cost.point.position <= point.position
        )
        views, epochs = 1, 0
        if not isinstance(space, HybridSpace) and _is_solved(transfer, point, share):
            views += transfer.head_views
        elif not isinstance(space, HybridSpace):
            epochs = settings.epochs or Budget.of(max(share, 1e-6), steps).epochs
            views = 1 if transfer.augmentation is None else min(epochs, settings.views)
        passes = (1 - share) * (views * train + valid) + epochs * share * (STEP * train + valid)
        seconds[name] = passes * seconds_per_image
    return seconds


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
