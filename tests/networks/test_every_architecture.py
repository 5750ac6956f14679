"""Every torchvision architecture, cut at every block: the halves joined equal the whole."""

from __future__ import annotations

import os

import pytest
import torch

from medtl.networks.architectures import architecture_names, build
from medtl.networks.borders import borders
from medtl.networks.cut import stages
from medtl.networks.cutpoints import cut_points
from medtl.networks.graph import trace
from medtl.networks.parts import part

# Where 32 pixels a side are not possible.
SIZES = {"alexnet": 64, "inception_v3": 75, "maxvit_t": 224, "vit_h_14": 28}

# The largest run only when asked for; the same code with fewer or narrower blocks always runs.
SIBLINGS = {}


def tested(name: str) -> object:
    skipped = name in SIBLINGS and "MEDTL_TEST_LARGE" not in os.environ
    reason = f"large, as {SIBLINGS.get(name)} but for its size; MEDTL_TEST_LARGE=1 runs it"
    return pytest.param(name, marks=pytest.mark.skipif(skipped, reason=reason))


@pytest.mark.parametrize("name", map(tested, architecture_names()))
def test_halves_joined_equal_the_whole(name: str) -> None:
    size = SIZES.get(name, 32)
    network = build(name, classes=3, image_size=size, seed=0).eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    points = cut_points(network, "blocks")
    assert len(points) >= 6
    assert points[0].position == 0

    graph = trace(network)
    crossing = (images,)
    with torch.no_grad():
        scores = network(images)
        for border, stage in zip(
            borders(graph, points, size), stages(network, points, size), strict=True
        ):
            crossing = stage(*crossing)
            assert tuple(tuple(t.shape[1:]) for t in crossing) == border.shapes
            suffix = part(graph, border, None).eval()
            torch.testing.assert_close(suffix(*crossing), scores, rtol=1e-4, atol=1e-4)
            assert suffix.state_dict().keys() <= network.state_dict().keys()
