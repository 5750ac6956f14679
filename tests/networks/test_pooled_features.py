"""Mean and spread of what crosses a cut, over the places of each channel."""

from __future__ import annotations

import pytest
import torch

from medtl.networks.pooled_features import pooled, pooled_with_spread


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 5, 3, 4), (2, 3)),
        ((2, 4, 4, 5), (1, 2)),
        ((2, 7, 5), (1,)),
        ((2, 3, 5, 4, 4), (1, 3, 4)),
    ],
    ids=["map", "channels last", "tokens", "patches"],
)
def test_the_spread_is_over_the_places_of_the_mean(shape: tuple[int, ...], axes: tuple[int, ...]):
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = torch.cat([tensor.mean(axes), tensor.std(axes, correction=0)], dim=1)
    torch.testing.assert_close(pooled_with_spread((tensor,)), expected)


def test_several_tensors_are_joined_and_features_have_no_spread():
    features, maps = torch.rand(2, 3), torch.rand(2, 4, 6, 6)
    found = pooled_with_spread((features, maps))
    torch.testing.assert_close(found[:, :7], pooled((features, maps)))
    assert not found[:, 7:10].any()
    torch.testing.assert_close(found[:, 10:], maps.std((2, 3), correction=0))
