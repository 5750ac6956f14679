from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.tuning.cutoff_dictionary import Description, Entry
from medtl.tuning.linear_probe import Probe
from medtl.tuning.search_space import Candidate, HybridCandidate, HybridSpace, NetworkName, Space
from medtl.tuning.warm_start import Start, first_trials, in_turn, plain_recipes

SPACE = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "layer2", "fc"))
DESCRIPTION = Description.of(np.random.default_rng(0).normal(size=(50, 4)))
PROBED = Probe(
    pd.DataFrame({"cutoff": ["layer1", "layer2", "fc"], "score": [0.7, 0.9, 0.8]}),
    DESCRIPTION,
    seconds_per_image=0.01,
)


def entry(backbone: str, cutoff: str) -> Entry:
    recipe = {"optimizer": "sgd", "lr": 2e-3}
    return Entry("net", "random", backbone, cutoff, cutoff, cutoff, recipe, 0.9, {}, DESCRIPTION)


def test_what_like_data_taught_comes_before_the_best_of_the_probe():
    known = [entry("own", "layer1"), entry("another", "fc"), entry("own", "no such layer")]
    starts = first_trials(SPACE, PROBED, "own", known, 2)
    assert [start.candidate for start in starts] == [
        Candidate("sgd", 2e-3, "layer1"),
        Candidate("adam", 1e-3, "layer2"),
        Candidate("adam", 1e-3, "fc"),
    ]
    (only,) = first_trials(SPACE, PROBED, "own", [], 1)
    assert only.candidate.cutoff == "layer2"


def test_the_plain_recipes_are_the_head_alone_and_all_layers():
    assert [start.candidate for start in plain_recipes(SPACE)] == [
        Candidate("adam", 1e-3, "fc"),
        Candidate("adam", 3e-4, "conv1"),
    ]


def test_a_hybrid_tries_all_in_the_order_of_the_probe():
    starts = first_trials(HybridSpace("knn", ("conv2", "layer2", "fc")), PROBED, "own", [], 1)
    assert [start.candidate for start in starts] == [
        HybridCandidate("knn", name) for name in ("layer2", "fc", "conv2")
    ]


def test_several_networks_take_turns():
    one = [Start(Candidate("adam", 1e-3, name), name) for name in ("fc", "layer2", "layer1")]
    other = [Start(Candidate("adam", 1e-3, "head"), "first of the other")]
    found = [
        (start.candidate.network.architecture, start.candidate.cutoff)
        for start in in_turn({NetworkName("one"): one, NetworkName("other"): other})
    ]
    assert found == [("one", "fc"), ("other", "head"), ("one", "layer2"), ("one", "layer1")]
