"""Estimated time of a search: cheaper where less is trained, bounded by the limit of time."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.flops import cut_costs
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.tuning.search_space import HybridSpace, Space
from medtl.tuning.study import Schedule
from medtl.tuning.time_estimate import EPOCH, ITERATIONS, TRIAL, search_seconds, trial_seconds
from medtl.tuning.trial_costs import TrialCosts, costs_of

CUTOFFS = ("conv1", "layer2", "layer3", "fc")
SPACE = Space(("adam",), 1e-4, 1e-2, CUTOFFS)


@pytest.fixture
def learner(tmp_path) -> TransferLearner:
    write_chest_phantoms(tmp_path, seed=3, patients=20, image_size=32)
    dataset = load(str(tmp_path / "labels.csv"), 32, seed=0)
    network = build("small_resnet", len(dataset.classes), 32, seed=0)
    preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, 32)
    backbone = Backbone("small_resnet", "random", network, preprocessing)
    return TransferLearner(backbone, dataset, TrainSettings(epochs=10, augment="none"))


COSTS = TrialCosts(forward=0.01, reading=0.001, step=0.05, update=0.2, product=1e-6, cutoff="conv1")


def test_all_layers_cost_measured_steps_and_later_cutoffs_their_share(learner):
    seconds = trial_seconds(learner, SPACE, COSTS)
    train, valid = (len(learner.labels(split)) for split in ("train", "valid"))
    steps, batch = max(1, train // 32), min(32, train)
    step = steps * (batch * COSTS.step + COSTS.update) + valid * COSTS.forward + EPOCH
    assert seconds["conv1"] == pytest.approx(TRIAL + 10 * (step + train * COSTS.reading))
    assert list(seconds.values()) == sorted(seconds.values(), reverse=True)
    doubled = dataclasses.replace(COSTS, step=0.1)
    parts = {each.point.name: each for each in cut_costs(learner.backbone.network, "layers", 32)}
    later = next(each for name, each in parts.items() if name.startswith("layer3"))
    assert trial_seconds(learner, SPACE, doubled)["layer3"] - seconds["layer3"] == pytest.approx(
        10 * steps * batch * 0.05 * later.trained_share
    )


def test_the_frozen_part_is_computed_once_where_it_is_cached_else_in_every_epoch(learner):
    train, valid = (len(learner.labels(split)) for split in ("train", "valid"))
    slow = dataclasses.replace(COSTS, forward=1.0)
    for keep, passes in (("always", 1), ("never", 10)):
        settings = TrainSettings(epochs=10, augment="none", keep=keep)
        own = dataclasses.replace(learner, settings=settings, shared=None)
        seconds, zero = (
            trial_seconds(own, SPACE, each)["fc"]
            for each in (slow, dataclasses.replace(slow, forward=0.0))
        )
        assert seconds - zero == pytest.approx(passes * (train + valid), rel=0.05)


def test_a_head_is_solved_after_one_pass_of_each_view_and_a_hybrid_after_one(learner):
    train, valid = (len(learner.labels(split)) for split in ("train", "valid"))
    unmeasured = TrialCosts(forward=0.01, cutoff="conv1")
    for settings, views in ((TrainSettings(augment="none"), 0), (TrainSettings(views=3), 3)):
        solved = dataclasses.replace(learner, settings=settings, shared=None)
        seconds = trial_seconds(solved, SPACE, unmeasured)["fc"]
        assert seconds == pytest.approx(TRIAL + 0.01 * ((1 + views) * train + valid), rel=0.05)
        solving = trial_seconds(solved, SPACE, dataclasses.replace(unmeasured, product=1e-4))
        assert solving["fc"] - seconds >= ITERATIONS * train * 1e-4 - 1e-9
    hybrid = trial_seconds(learner, HybridSpace("svm", CUTOFFS[1:]), TrialCosts(forward=0.01))
    assert max(hybrid.values()) <= TRIAL + 0.01 * (train + valid)


def test_measuring_changes_neither_weights_nor_random_numbers(learner):
    before = {name: value.clone() for name, value in learner.backbone.network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    costs = costs_of(learner, SPACE, forward=0.001)
    assert torch.equal(torch.rand(4), expected)
    after = learner.backbone.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not learner.activation_cache.notes
    assert costs.cutoff == "conv1"
    assert min(costs.reading, costs.step, costs.update, costs.product) > 0
    assert costs_of(learner, HybridSpace("svm", CUTOFFS[1:]), 0.01) == TrialCosts(0.01)


def test_the_queued_trials_count_by_themselves_and_later_ones_may_be_pruned():
    schedule = Schedule(trials=6, timeout=0, pruner="median", seed=0)
    by_network = [{"a": 10.0, "b": 2.0}, {"a": 4.0}]
    assert search_seconds(schedule, 0, [1.0, 2.0], by_network) == pytest.approx(
        1 + 2 + 5 + 5 + 2 * 5 * 0.7
    )
    assert search_seconds(schedule, 5, [], by_network) == pytest.approx(5 * 0.7)
    bounded = dataclasses.replace(schedule, timeout=4.0)
    assert search_seconds(bounded, 0, [], by_network) == 4.0
