"""In-place activations of a suffix: no copy in training, and nothing else changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from medtl.networks.cutoffs import CutPoint
from medtl.networks.partition import cut


class Small(nn.Module):
    """Two layers around one in-place activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.activation, self.head = activation, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.norm(self.conv(x))).mean((2, 3)))


ACTIVATIONS = (nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Mish, nn.ReLU, nn.ELU)


def pair(activation: type[nn.Module]) -> tuple[Small, nn.Module]:
    """A network whose norm reaches both bounds of ReLU6, and the suffix of a copy of it at all."""
    torch.manual_seed(0)
    network = Small(activation(inplace=True))
    nn.init.constant_(network.norm.weight, 5.0)
    return network, cut(copy.deepcopy(network), CutPoint("all", 0), 8).suffix


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scores_and_gradients_are_those_of_the_network_to_the_bit(activation) -> None:
    network, suffix = pair(activation)
    images = torch.randn(4, 3, 8, 8)
    scores = [part.train()(images) for part in (network, suffix)]
    assert torch.equal(*scores)
    for each in scores:
        nn.functional.cross_entropy(each, torch.tensor([0, 1, 2, 0])).backward()
    gradients = {name: each.grad for name, each in suffix.named_parameters()}
    assert gradients.keys() == dict(network.named_parameters()).keys()
    assert all(torch.equal(gradients[name], p.grad) for name, p in network.named_parameters())
    assert torch.equal(network.eval()(images), suffix.eval()(images))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_not_copied_in_training(activation) -> None:
    network, _ = pair(activation)
    suffix = cut(network, CutPoint("all", 0), 8).suffix
    with torch.profiler.profile() as profile:
        suffix.train()(torch.randn(4, 3, 8, 8))
    assert "aten::clone" not in {event.key for event in profile.key_averages()}
    assert isinstance(network.activation, activation)
    assert network.activation.inplace, "the network's own layer has changed"
