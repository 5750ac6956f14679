"""What each cut costs."""

from __future__ import annotations

import pytest
import torchvision

from medtl.networks.flops import cut_costs, operations
from medtl.networks.partition import cut


@pytest.mark.parametrize(
    ("architecture", "image_size"), [("mobilenet_v2", 224), ("vit_b_32", 224), ("swin_t", 224)]
)
def test_the_whole_costs_what_torchvision_publishes(architecture: str, image_size: int) -> None:
    network = torchvision.models.get_model(architecture)
    published = torchvision.models.get_model_weights(architecture).DEFAULT.meta
    costs = cut_costs(network, "blocks", image_size)
    multiplications = (costs[0].frozen_flops + costs[0].trained_flops) / 2
    assert multiplications / 1e9 == pytest.approx(published["_ops"], rel=0.01)
    assert costs[0].trained_parameters == published["num_params"]
    assert costs[0].frozen_parameters == 0
    assert costs[0].trained_share == 1


def test_deeper_cuts_freeze_more() -> None:
    network = torchvision.models.get_model("densenet121")
    costs = cut_costs(network, "layers", 32)
    parameters = [cost.frozen_parameters for cost in costs]
    assert parameters == sorted(set(parameters))
    shares = [cost.trained_share for cost in costs]
    assert shares == sorted(shares, reverse=True)
    head = network.classifier
    assert costs[-1].trained_parameters == head.weight.numel() + head.bias.numel()
    assert costs[-1].trained_flops == 2 * head.weight.numel()
    everything = sum(parameter.numel() for parameter in network.parameters())
    assert all(c.frozen_parameters + c.trained_parameters == everything for c in costs)


def test_what_comes_after_a_cut_costs_what_the_cut_says() -> None:
    network = torchvision.models.get_model("shufflenet_v2_x0_5")
    costs = cut_costs(network, "blocks", 64)
    assert operations(network, [(3, 64, 64)]) == costs[0].trained_flops
    cost = costs[len(costs) // 2]
    divided = cut(network, cost.point, 64)
    assert operations(divided.suffix, divided.shapes) == cost.trained_flops
