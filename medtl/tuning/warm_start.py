"""First trials of a search: plain recipes, similar data, the linear probe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from medtl.tuning.cutoff_dictionary import Entry, nearest
from medtl.tuning.linear_probe import Probe
from medtl.tuning.search_space import (
    AnyCandidate,
    Candidate,
    HybridCandidate,
    HybridSpace,
    NetworkName,
    OneSpace,
    Space,
)

PLAIN_LR = 3e-4  # learning rate of fine-tuning all layers


@dataclass(frozen=True)
class Start:
    """Candidate that is tried before the sampler starts, and the reason."""

    candidate: AnyCandidate
    why: str


def plain_recipes(space: Space) -> list[Start]:
    """Returns both ends of a space of all cut-offs: the head only, and all layers fine-tuned.

    So a search includes the recipes that need no search.
    """
    optimizer, lr = space.optimizers[0], math.sqrt(space.lr_low * space.lr_high)
    first, *_, head = space.cutoffs
    return [
        Start(Candidate(optimizer, lr, head), "plain feature extraction"),
        Start(Candidate(optimizer, PLAIN_LR, first), "plain fine-tuning of all layers"),
    ]


def first_trials(
    space: OneSpace, probed: Probe, backbone: str, known: Sequence[Entry], count: int
) -> list[Start]:
    """Returns the first trials by the nearest known data sets and by the probe, `count` each.

    `backbone` is the digest of the network's weights, `known` the dictionary. For a hybrid, whose
    only parameter is the cut-off, returns all cut-offs in the order of the probe.
    """
    ranked = [name for name in probed.best(len(probed.curve)) if name in space.cutoffs]
    if isinstance(space, HybridSpace):
        others = [name for name in space.cutoffs if name not in ranked]
        why = "in the order of the layer probe"
        return [Start(HybridCandidate(space.classifier, name), why) for name in ranked + others]
    starts = []
    for near in nearest(probed.description, backbone, known, count):
        entry = near.entry
        optimizer = entry.recipe.get("optimizer")
        if entry.cutoff in space.cutoffs and optimizer in space.optimizers:
            augment = str(entry.recipe.get("augment", ""))
            candidate = Candidate(
                str(optimizer),
                float(entry.recipe["lr"]),
                entry.cutoff,
                augment=augment if augment in space.augments else "",
            )
            why = f"best on {entry.data} (distance {near.distance:.2f}, run {entry.run_id})"
            starts.append(Start(candidate, why))
    lr = math.sqrt(space.lr_low * space.lr_high)
    for cutoff in ranked[:count]:
        starts.append(Start(Candidate(space.optimizers[0], lr, cutoff), "best of the layer probe"))
    return starts


def in_turn(starts: Mapping[NetworkName, Sequence[Start]]) -> list[Start]:
    """Interleaves the first trials of several networks: one of each, then the next."""
    named = [
        [Start(dataclasses.replace(start.candidate, network=name), start.why) for start in own]
        for name, own in starts.items()
    ]
    return [start for start in chain.from_iterable(zip_longest(*named)) if start is not None]
