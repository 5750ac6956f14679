"""Building networks by name, with a seed, for an image size."""

from __future__ import annotations

import pytest
import torch
import torchvision

from medtl.errors import ParameterError
from medtl.networks.registry import OF_CASES, OWN, architecture_names, build


def test_every_classification_network_of_torchvision_is_there() -> None:
    names = architecture_names()
    assert {"alexnet", "densenet121", "vit_b_16", "maxvit_t", "swin_v2_t"} <= set(names)
    theirs = set(torchvision.models.list_models(module=torchvision.models))
    assert theirs == set(names) - {*OWN, *OF_CASES}
    assert {"parallel_cnn", "late_fusion", "transmed_ti", "transmed_s", "transmed_b"} <= set(names)


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = build("squeezenet1_1", classes=4, image_size=32, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    same = build("squeezenet1_1", classes=4, image_size=32, seed=7).state_dict()
    other = build("squeezenet1_1", classes=4, image_size=32, seed=8).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["features.0.weight"], other["features.0.weight"])


@pytest.mark.parametrize(
    ("architecture", "image_size"), [("googlenet", 32), ("inception_v3", 75), ("vit_b_32", 64)]
)
def test_scores_of_as_many_classes_as_asked(architecture: str, image_size: int) -> None:
    network = build(architecture, classes=5, image_size=image_size, seed=0)
    # In training too, where auxiliary heads would answer beside the main one.
    scores = network.train()(torch.rand(2, 3, image_size, image_size))
    assert scores.shape == (2, 5)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"architecture=resnet_18 .*resnet18"):
        build("resnet_18", classes=2, image_size=32, seed=0)


@pytest.mark.parametrize(
    ("architecture", "image_size"),
    [("alexnet", 32), ("inception_v3", 64), ("vit_b_16", 100), ("maxvit_t", 200)],
)
def test_an_image_size_that_the_network_cannot_take(architecture: str, image_size: int) -> None:
    with pytest.raises(ParameterError, match=f"image_size={image_size} .*{architecture}") as raised:
        build(architecture, classes=2, image_size=image_size, seed=0)
    assert "\n" not in str(raised.value)
