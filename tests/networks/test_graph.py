"""Traces shared by networks of equal structure, and results that are computed once for all."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from medtl.networks import graph as graph_module
from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.flops import cut_costs
from medtl.networks.graph import UntraceableError, structure, trace
from medtl.networks.partition import cut
from medtl.networks.registry import build

SIZE = 32


@pytest.mark.parametrize("architecture", ["small_resnet", "dual:small_resnet+squeezenet1_1"])
def test_networks_of_one_structure_are_traced_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_traces", {})
    traced = []
    trace_anew = graph_module._traced
    monkeypatch.setattr(
        graph_module, "_traced", lambda network: traced.append(network) or trace_anew(network)
    )
    network = build(architecture, 3, SIZE, seed=0)
    again = build(architecture, 3, SIZE, seed=1).train()
    traced.clear()  # a dual traces its halves
    graph_module._traces.clear()
    for each in (network, again, copy.deepcopy(network)):
        assert trace(each).network is each
        point = cut_points(each, "blocks")[2]
        images = torch.rand(2, 3, SIZE, SIZE)
        halves = cut(each, point, SIZE)
        torch.testing.assert_close(
            halves.suffix.eval()(*halves.prefix(images)), each.eval()(images)
        )
    assert len(traced) == 1
    other = build(architecture, 4, SIZE, seed=0)  # classes
    assert trace(other).trace is not trace(network).trace


class Scaled(nn.Module):
    """Adds a bias that is computed from weights, and has a setting that changes its operations."""

    def __init__(self, doubled: bool, extra: object = None) -> None:
        super().__init__()
        self.doubled = doubled
        self.extra = extra
        self.register_buffer("coordinates", torch.linspace(-1, 1, 3))
        self.position = nn.Linear(3, 3)
        self.stem = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stem(x.mean((2, 3))) + self.position(self.coordinates)
        if self.extra is not None:
            features = features + self.extra
        return self.head(2 * features if self.doubled else features)


def joined_equals_whole(network: nn.Module) -> bool:
    images = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    halves = cut(network, next(p for p in cut_points(network, "layers") if p.name == "stem"), SIZE)
    return torch.equal(halves.suffix(*halves.prefix(images)), network(images))


def test_settings_and_constants_are_each_network_s_own() -> None:
    networks = [Scaled(doubled) for doubled in (False, True, False)]
    assert trace(networks[0]).trace is trace(networks[2]).trace
    assert trace(networks[0]).trace is not trace(networks[1]).trace
    assert all(map(joined_equals_whole, networks))  # the bias is that of its own weights


def test_networks_that_cannot_be_compared_are_traced_each_by_itself() -> None:
    ones, twos = Scaled(False, torch.ones(3)), Scaled(False, 2 * torch.ones(3))
    assert structure(ones) is None
    assert trace(ones).trace is not trace(twos).trace
    assert joined_equals_whole(ones)
    assert joined_equals_whole(twos)


def test_costs_of_the_second_network_are_those_of_the_first() -> None:
    first, second = (build("small_resnet", 3, SIZE, seed) for seed in (0, 1))
    assert cut_costs(first, "layers", SIZE) == cut_costs(second, "layers", SIZE)
    assert cut_costs(first, "layers", 2 * SIZE)[0].trained_flops > 3 * (
        cut_costs(second, "layers", SIZE)[0].trained_flops
    )


def test_few_traces_are_kept() -> None:
    for width in range(graph_module._MOST_TRACES + 3):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(3, width + 1)))
    assert len(graph_module._traces) == graph_module._MOST_TRACES


def test_a_point_keeps_the_name_by_which_it_was_asked_for() -> None:
    network = build("small_resnet", 3, SIZE, seed=0)
    block = next(p for p in cut_points(network, "blocks") if p.name == "layer3")
    layer = CutPoint("layer3.conv1", block.position)
    assert cut(network, block, SIZE).point == block
    assert cut(network, layer, SIZE).point == layer


class Conditional(nn.Module):
    """A layer whose operations depend on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Around(nn.Module):
    """A network around a conditional layer, with an option beside the images."""

    def __init__(self, conditional_itself: bool) -> None:
        super().__init__()
        self.conditional_itself = conditional_itself
        self.first = nn.Linear(3, 3)
        self.middle = Conditional()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None, twice: bool = False) -> Tensor:
        x = self.middle(self.first(x.mean((2, 3))))
        if mask is not None or twice:
            x = 2 * x
        if self.conditional_itself and x.sum() > 0:
            x = 3 * x
        return self.head(x)


def test_a_module_that_cannot_be_traced_is_one_operation() -> None:
    network = Around(conditional_itself=False)
    names = [point.name for point in cut_points(network, "layers")]
    assert names == ["first", "middle", "head"]
    assert [node.op for node in trace(network).nodes].count("placeholder") == 1
    images = torch.rand(2, 3, SIZE, SIZE)
    for point in cut_points(network, "layers")[1:]:
        halves = cut(network, point, SIZE)
        torch.testing.assert_close(halves.suffix(*halves.prefix(images)), network(images))


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(UntraceableError, match="its forward cannot be traced: "):
        trace(Around(conditional_itself=True))
