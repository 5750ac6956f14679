"""SqueezeNet's output layer behind the pooling: a linear head, and models logged before it."""

from __future__ import annotations

import torch
import torchvision

from medtl.networks.pooled_head import restore_convolution
from medtl.networks.registry import build

NAME = "squeezenet1_1"


def published(classes: int) -> torch.nn.Module:
    return torchvision.models.get_model(NAME, num_classes=classes).eval()


def test_scores_are_those_of_the_published_head_without_its_relu():
    ours, theirs = build(NAME, 3, 64, seed=1).eval(), published(3)
    with torch.no_grad():
        ours.classifier[1].bias -= 1  # scores below 0, which a ReLU would raise to 0
    state = ours.state_dict()
    theirs.load_state_dict(
        {k: v[..., None, None] if k == "classifier.1.weight" else v for k, v in state.items()}
    )
    theirs.classifier[2] = torch.nn.Identity()
    shown = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = ours(shown)
        torch.testing.assert_close(scores, theirs(shown))
    assert (scores < 0).any()


def test_stored_weights_of_the_published_head_get_it_back():
    theirs = published(3)
    network = build(NAME, 3, 64, seed=1)
    restore_convolution(network, theirs.state_dict())
    network.eval().load_state_dict(theirs.state_dict())
    shown = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(shown), theirs(shown))


def test_other_states_and_networks_are_left_as_they_are():
    network = build(NAME, 3, 64, seed=1)
    head = network.classifier
    restore_convolution(network, network.state_dict())
    assert network.classifier is head
    other = build("small_resnet", 3, 32, seed=1)
    restore_convolution(other, published(3).state_dict())
    assert not hasattr(other, "classifier")
