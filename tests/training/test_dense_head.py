"""A head with a dense ReLU layer is trained by gradient, on what is kept at the cut `head`."""

from __future__ import annotations

import copy

import torch

from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner

SIZE = 48


def transfer_of(dataset, hidden: int, **settings: object) -> TransferLearner:
    network = build("small_resnet", len(dataset.classes), SIZE, seed=0, hidden=hidden)
    backbone = Backbone(
        "small_resnet", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE)
    )
    return TransferLearner(backbone, dataset, TrainSettings(hidden=hidden, **settings))


def test_the_dense_layer_is_trained_by_gradient_and_the_backbone_is_frozen(dataset):
    made = transfer_of(dataset, 8, epochs=0, views=1)
    before = copy.deepcopy(made.backbone.network.state_dict())
    trained = made.train("head", made.recipe("adam", 1e-2))
    assert trained.solved is None
    after = trained.network.state_dict()
    head = [name for name in before if name.startswith("fc.")]
    assert head == ["fc.hidden.weight", "fc.hidden.bias", "fc.output.weight", "fc.output.bias"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(head)


def test_what_is_kept_at_a_cut_is_shared_with_networks_without_it(dataset):
    without, with_it = (transfer_of(dataset, units) for units in (0, 8))
    assert with_it.backbone.digest() == without.backbone.digest()
    assert with_it.activation_cache.key == without.activation_cache.key
