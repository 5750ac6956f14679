"""Architectures of all families, cut at every block: the parts joined equal the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medtl.networks.cutoffs import cut_points
from medtl.networks.graph import trace
from medtl.networks.partition import borders, part
from medtl.networks.registry import architecture_names

# Where 32 pixels a side are not possible.
SIZES = {"alexnet": 64, "inception_v3": 75, "maxvit_t": 224}

# Of 600 million weights, which take gigabytes; built as their smaller siblings are.
HUGE = {"regnet_y_128gf", "vit_h_14"}

# The smallest of each family: there each suffix runs by itself too.
FAMILIES = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3"),
    *("mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf"),
    *("resnet18", "resnet50", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t"),
    *("vgg11_bn", "vit_b_32"),
    *("parallel_cnn", "late_fusion", "transmed_ti"),
    "dual:small_resnet+squeezenet1_1",
)

DUALS = ("dual:densenet121+mobilenet_v3_small", "dual:swin_t+resnet18")


def images_for(name: str) -> Tensor:
    size = SIZES.get(name, 32)
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def assert_equal(scores: Tensor, whole: Tensor) -> None:
    assert (whole[0] - whole[1]).abs().max() > 1e-3 * whole.abs().max(), "all images look alike"
    torch.testing.assert_close(scores, whole, rtol=0, atol=1e-4 * whole.abs().max().item())


ALL = (*sorted({*architecture_names()} - HUGE), *DUALS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAMILIES else pytest.mark.slow) for name in ALL],
)
@torch.no_grad()
def test_parts_between_all_blocks_joined_equal_the_whole(
    name: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    """What crosses at each cut is given by the part before it and enough for the part after it."""
    images = images_for(name)
    network = network_of(name, len(images[0, 0]))
    graph = trace(network)
    points = cut_points(network, "blocks")
    assert len(points) >= (6 if name in FAMILIES else 2)
    assert points[0].position == 0

    known = borders(graph, points, len(images[0, 0]))
    crossing = (images,)
    for start, stop in zip(known, [*known[1:], None], strict=True):
        assert tuple(tuple(tensor.shape) for tensor in crossing) == tuple(
            (2, *shape) for shape in start.shapes
        )
        crossing = part(graph, start, stop).eval()(*crossing)
    assert_equal(crossing, network(images))


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_prefix_and_suffix_joined_equal_the_whole_at_every_block(
    name: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    images = images_for(name)
    network = network_of(name, len(images[0, 0]))
    graph = trace(network)
    whole = network(images)
    first, *others = borders(graph, cut_points(network, "blocks"), len(images[0, 0]))
    for border in others:
        suffix = part(graph, border, None).eval()
        assert_equal(suffix(*part(graph, first, border).eval()(images)), whole)
        assert suffix.state_dict().keys() < network.state_dict().keys()
