"""Estimated time of a search: cheaper where less is trained, bounded by the limit of time."""

from __future__ import annotations

import dataclasses

import pytest

from medtl.data.dataset import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.tuning.search_space import HybridSpace, Space
from medtl.tuning.study import Schedule
from medtl.tuning.time_estimate import search_seconds, trial_seconds

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


def test_all_layers_cost_three_passes_an_image_and_later_cutoffs_less(learner):
    seconds = trial_seconds(learner, SPACE, 0.01)
    train, valid = (len(learner.labels(split)) for split in ("train", "valid"))
    assert seconds["conv1"] == pytest.approx(0.01 * 10 * (3 * train + valid))
    assert list(seconds.values()) == sorted(seconds.values(), reverse=True)
    for settings, views in ((TrainSettings(augment="none"), 0), (TrainSettings(views=3), 3)):
        solved = dataclasses.replace(learner, settings=settings, shared=None)
        assert trial_seconds(solved, SPACE, 0.01)["fc"] == pytest.approx(
            0.01 * ((1 + views) * train + valid), rel=0.05
        ), "solved after one pass of each view"
    hybrid = trial_seconds(learner, HybridSpace("svm", CUTOFFS[1:]), 0.01)
    assert max(hybrid.values()) <= 0.01 * (train + valid)


def test_the_queued_trials_count_by_themselves_and_later_ones_may_be_pruned():
    schedule = Schedule(trials=6, timeout=0, pruner="median", seed=0)
    by_network = [{"a": 10.0, "b": 2.0}, {"a": 4.0}]
    assert search_seconds(schedule, 0, [1.0, 2.0], by_network) == pytest.approx(
        1 + 2 + 5 + 5 + 2 * 5 * 0.7
    )
    assert search_seconds(schedule, 5, [], by_network) == pytest.approx(5 * 0.7)
    bounded = dataclasses.replace(schedule, timeout=4.0)
    assert search_seconds(bounded, 0, [], by_network) == 4.0
