"""Layer-wise learning rate decay: the rate of every parameter, and what a step does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medtl.errors import ParameterError
from medtl.networks.cutoffs import cut_points
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.settings.training import TrainSettings
from medtl.training.layer_decay import rate_shares
from medtl.training.loop import build_optimizer

SIDE = 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small_resnet", {"fc": 1, "layer4": 0.5, "layer3": 0.25}),
        # the class token and the position embedding are read with the first block
        ("timm:test_vit", {"head": 1, "norm": 0.5, "blocks.5": 0.25, "pos_embed": 0.5**8}),
        ("dual:small_resnet+small_resnet", {"head": 1, "first.layer4": 0.5, "second.layer4": 0.5}),
    ],
)
def test_each_block_has_a_share_of_the_rate_of_the_one_after_it(name, expected) -> None:
    network = build(name, classes=2, image_size=SIDE, seed=0)
    shares = rate_shares(network, 0.5)
    assert shares.keys() == dict(network.named_parameters()).keys()
    blocks = cut_points(network, "blocks")
    depth = len([each for each in blocks if not each.name.startswith("second.")])
    assert set(shares.values()) == {0.5**distance for distance in range(depth)}
    for layer, share in expected.items():
        found = {shares[each] for each in shares if f"{each}.".startswith(f"{layer}.")}
        assert found == {share}, layer
    # the same names as in the trained part
    suffix = cut(network, blocks[1], SIDE).suffix
    assert {path for path, _ in suffix.named_parameters()} < shares.keys()


def test_without_shares_the_optimizer_is_as_before_and_with_them_each_group_has_its_rate() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    (weights, biases) = build_optimizer("adam", network, 0.01, 0.1).param_groups
    assert [len(weights["params"]), weights["lr"], weights["weight_decay"]] == [2, 0.01, 0.1]
    assert [len(biases["params"]), biases["lr"], biases["weight_decay"]] == [2, 0.01, 0.0]

    shares = {"0.weight": 0.5, "0.bias": 0.5, "2.weight": 1.0, "2.bias": 1.0}
    plain, decayed = network, copy.deepcopy(network)
    steps = []
    for each, own in ((plain, None), (decayed, shares)):
        before = copy.deepcopy(each.state_dict())
        optimizer = build_optimizer("sgd", each, 0.01, 0.0, own)
        each(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
        steps.append({name: value - before[name] for name, value in each.state_dict().items()})
    for name, share in shares.items():
        torch.testing.assert_close(steps[1][name], share * steps[0][name], rtol=1e-3, atol=1e-7)


def test_a_hybrid_has_no_learning_rate_to_decay() -> None:
    with pytest.raises(ParameterError, match=r"layer_decay=0\.5.*hybrid"):
        TrainSettings(transfer="hybrid", layer_decay=0.5)
