"""A cut with a layer for each half of a dual: what is kept, trained and refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.tuning.backbone_pool import search_space

NAME = "dual:small_resnet+small_resnet"
SIZE = 48


@pytest.fixture
def dual(dataset: Dataset) -> TransferLearner:
    network = build(NAME, len(dataset.classes), SIZE, seed=0)
    backbone = Backbone(NAME, "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE))
    return TransferLearner(
        backbone, dataset, TrainSettings(epochs=1, keep="always", augment="none")
    )


def of(transfer: TransferLearner) -> tuple[str, nn.Module]:
    return transfer.backbone.architecture, transfer.backbone.network


def test_cuts_that_begin_alike_are_kept_apart(dual: TransferLearner) -> None:
    rows = np.array([4, 0, 2])
    points = []
    for cutoff in ("first.layer2", "layer2+layer3", "layer2+layer4", "all+layer4"):
        network = dual.backbone.copy()
        points.append(resolve(network, NAME, cutoff))
        feed = dual.feed(cut(network, points[-1], SIZE), "valid", None)
        assert feed.view(1) is not None
        for kept, fresh in zip(feed.batch(rows, 1), feed.fresh.batch(rows, 1), strict=True):
            torch.testing.assert_close(kept, fresh, rtol=5e-3, atol=5e-3)
    assert len({point.position for point in points[:3]}) == 1
    assert points[3].position == 0


def test_training_moves_each_half_from_its_own_layer_on(dual: TransferLearner) -> None:
    before = copy.deepcopy(dual.backbone.network.state_dict())
    after = dual.train("layer4+layer2", dual.recipe("sgd", 0.1)).network.state_dict()
    trained = ("first.layer4", "second.layer2", "second.layer3", "second.layer4", "head.")
    for name, value in before.items():
        assert torch.equal(value, after[name]) != name.startswith(trained), name


def test_two_names_of_one_cut_are_searched_once(dual: TransferLearner) -> None:
    named = "head,layer4+layer2,head+head,layer4+layer3,layer4.conv1+layer2.conv1,all+all"
    space = search_space(TuneSettings(cutoffs=named), *of(dual))
    assert space.cutoffs == ("all+all", "layer4.conv1+layer2.conv1", "layer4+layer3", "head+head")


def test_a_hybrid_has_features_where_one_half_is_frozen(dual: TransferLearner) -> None:
    settings = TuneSettings(cutoffs="all,all+layer3", transfer="hybrid")
    assert search_space(settings, *of(dual)).cutoffs == ("all+layer3",)
    assert dual.train_hybrid("all+layer3").tail is not None
    with pytest.raises(ParameterError, match="cutoff=all"):
        dual.train_hybrid("all+all")
