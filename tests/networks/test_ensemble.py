"""Ensembles: the common part runs once and is stored once; scores are the mean of the members'."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medtl.networks.cutoffs import resolve
from medtl.networks.ensemble import Ensemble, members_of, stored_state, with_mean_suffix
from medtl.networks.partition import Cut, cut
from medtl.networks.registry import build

SIDE = 64
KINDS = [
    ("small_resnet", "layer3", 1),
    ("small_resnet", "all", 1),
    ("late_fusion:small_resnet", "head", 2),
    ("dual:small_resnet+small_resnet", "layer3+layer2", 1),
]


def trained(architecture: str, cutoff: str, images: int = 1) -> tuple[list[nn.Module], list[Cut]]:
    """Three networks whose layers from `cutoff` on differ, and their cuts."""
    first = build(architecture, 3, SIDE, seed=0, modalities=images).eval()
    networks = [copy.deepcopy(first) for _ in range(3)]
    cuts = [cut(each, resolve(each, architecture, cutoff), SIDE) for each in networks]
    for number, each in enumerate(cuts):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in each.suffix.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return networks, cuts


def random_images(images: int = 1) -> torch.Tensor:
    return torch.rand(2, 3 * images, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(("architecture", "cutoff", "images"), KINDS)
def test_scores_and_gradients_are_the_mean_of_the_networks(architecture, cutoff, images):
    networks, cuts = trained(architecture, cutoff, images)
    apart, together = (random_images(images).requires_grad_() for _ in range(2))
    expected = torch.stack([each(apart) for each in networks]).mean(dim=0)
    assert (networks[0](apart) - expected).abs().max() > 1e-3
    found = Ensemble.of(cuts, networks, SIDE)(together)
    torch.testing.assert_close(found, expected)
    (before,) = torch.autograd.grad(expected[:, 1].sum(), apart)
    (after,) = torch.autograd.grad(found[:, 1].sum(), together)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("architecture", "cutoff", "images"), KINDS)
def test_a_stored_ensemble_is_rebuilt_and_holds_the_common_part_once(architecture, cutoff, images):
    networks, cuts = trained(architecture, cutoff, images)
    ensemble = Ensemble.of(cuts, networks, SIDE)
    state = {name: value.clone() for name, value in stored_state(ensemble).items()}
    own = sum(value.numel() for value in cuts[0].suffix.state_dict().values())
    whole = sum(value.numel() for value in networks[0].state_dict().values())
    assert sum(value.numel() for value in state.values()) == whole + 2 * own

    fresh = build(architecture, 3, SIDE, seed=5, modalities=images)
    rebuilt = Ensemble.of_state(fresh, resolve(fresh, architecture, cutoff), SIDE, state)
    with torch.no_grad():
        expected = ensemble(random_images(images))
        assert torch.equal(rebuilt(random_images(images)), expected)
    kept = {each.data_ptr() for each in rebuilt.state_dict().values() if each.numel()}
    stored = {each.data_ptr() for each in stored_state(rebuilt).values() if each.numel()}
    assert kept == stored, "the members share the memory of the common part"


def test_the_common_part_runs_once():
    networks, cuts = trained("small_resnet", "layer3")
    ensemble = Ensemble.of(cuts, networks, SIDE)
    calls: list[str] = []
    for each in ensemble.members:
        for name in ("conv1", "fc"):
            each.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        ensemble(random_images())
    assert sorted(calls) == ["conv1", "fc", "fc", "fc"]


def test_networks_that_differ_before_the_cut_are_refused():
    networks, cuts = trained("small_resnet", "layer3")
    with torch.no_grad():
        networks[2].conv1.weight += 1e-3
    with pytest.raises(ValueError, match="differ before the cut layer3"):
        Ensemble.of(cuts, networks, SIDE)


def test_cuts_at_different_layers_are_refused():
    networks, cuts = trained("small_resnet", "layer3")
    other, others = trained("small_resnet", "layer2")
    with pytest.raises(ValueError, match="differ before the cut layer3"):
        Ensemble.of([cuts[0], others[1]], [networks[0], other[1]], SIDE)


def test_a_member_without_a_tensor_is_refused():
    networks, cuts = trained("small_resnet", "layer3")
    state = stored_state(Ensemble.of(cuts, networks, SIDE))
    del state["member_3.fc.bias"]
    fresh = build("small_resnet", 3, SIDE, seed=5)
    with pytest.raises(ValueError, match="member 3 has not the tensors from layer3 on"):
        Ensemble.of_state(fresh, resolve(fresh, "small_resnet", "layer3"), SIDE, state)


def test_the_mean_of_linear_heads_is_one_head_and_the_networks_stay():
    networks, cuts = trained("small_resnet", "head")
    before = [each(random_images()) for each in networks]
    found = with_mean_suffix(networks[0], cuts)
    torch.testing.assert_close(found(random_images()), torch.stack(before).mean(dim=0))
    assert torch.equal(networks[0](random_images()), before[0])
    assert found.conv1.weight.data_ptr() == networks[0].conv1.weight.data_ptr()


def test_members_of_a_network_are_itself():
    network = build("small_resnet", 3, SIDE, seed=0)
    assert members_of(network) == [network]
