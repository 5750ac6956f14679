"""The cut: what is frozen stays so to the bit, what is trained is the network itself."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.networks.cutoffs import CutPoint, cut_points, resolve
from medtl.networks.partition import Cut, cut, stages
from medtl.networks.registry import build

SIZE = 32


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def trained(halves: Cut, steps: int = 2) -> None:
    """A few steps with all that moves weights: momentum, decay, batch norm and dropout at work."""
    halves.prefix.train()
    halves.suffix.train()
    optimizer = torch.optim.SGD(
        halves.suffix.parameters(), lr=0.001, momentum=0.9, weight_decay=0.1
    )
    for _ in range(steps):
        scores = halves.suffix(*halves.prefix(images()))
        optimizer.zero_grad()
        nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("architecture", "cutoff"),
    [
        ("mobilenet_v2", "features.14"),
        ("mobilenet_v2", "all"),
        ("densenet121", "features.denseblock4.denselayer16.conv2"),
        ("resnet18", "layer3.0.downsample.0"),
        ("efficientnet_b0", "features.5.0.block.2.fc1"),
        ("convnext_tiny", "features.5.4.layer_scale"),
        ("vit_b_32", "encoder.pos_embedding"),
        ("swin_t", "features.5.1.attn.qkv"),
        ("swin_v2_t", "features.1.1.attn.cpb_mlp.2"),
    ],
)
def test_training_moves_the_suffix_and_nothing_before_it(
    architecture: str, cutoff: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    network = network_of(architecture, SIZE)
    whole = network(images())
    halves = cut(network, resolve(network, architecture, cutoff), SIZE)
    torch.testing.assert_close(halves.suffix.eval()(*halves.prefix(images())), whole)

    before = copy.deepcopy(network.state_dict())
    frozen = copy.deepcopy(halves.prefix.state_dict())
    trained(halves)

    assert all(
        torch.equal(value, frozen[name]) for name, value in halves.prefix.state_dict().items()
    )
    trainable = {name for name, _ in halves.suffix.named_parameters()}
    after = network.state_dict()
    for name, value in halves.suffix.state_dict().items():
        assert torch.equal(value, after[name]), f"the suffix's {name} is not the network's"
    for name in trainable:
        assert not torch.equal(before[name], after[name]), f"{name} was not trained"
    for name in before.keys() - halves.suffix.state_dict().keys():
        assert torch.equal(before[name], after[name]), f"{name} was frozen and moved"


def test_prefix_stays_in_eval_mode_whatever_is_called() -> None:
    network = build("mobilenet_v2", classes=3, image_size=SIZE, seed=0)
    halves = cut(network, resolve(network, "mobilenet_v2", "head"), SIZE)
    expected = halves.prefix(images())[0]
    state = copy.deepcopy(network.state_dict())
    halves.prefix.train(True)
    assert not any(module.training for module in halves.prefix.modules())
    network.train()  # reaches the prefix's layers, which are the network's own
    torch.testing.assert_close(halves.prefix(images())[0], expected, rtol=0, atol=0)
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert not expected.requires_grad


def test_dropout_of_the_suffix_obeys_train() -> None:
    network = build("mobilenet_v2", classes=3, image_size=SIZE, seed=0)
    suffix = cut(network, resolve(network, "mobilenet_v2", "features.18.0"), SIZE).suffix
    modes = {type(module): module.training for module in suffix.train().modules()}
    assert modes[nn.Dropout]
    assert modes[nn.BatchNorm2d]


def test_a_later_cut_decides_anew_what_is_trained() -> None:
    network = build("resnet18", classes=3, image_size=SIZE, seed=0)
    cut(network, resolve(network, "resnet18", "head"), SIZE)
    cut(network, resolve(network, "resnet18", "layer4"), SIZE)
    trainable = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trainable == {"layer4", "fc"}


def test_cutting_changes_neither_weights_nor_modes() -> None:
    network = build("resnet18", classes=3, image_size=SIZE, seed=0).train()
    network.layer1.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    cut(network, resolve(network, "resnet18", "all"), SIZE)
    assert modes == [module.training for module in network.modules()]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_prefix_at_all_is_the_identity() -> None:
    network = build("resnet18", classes=3, image_size=SIZE, seed=0)
    halves = cut(network, resolve(network, "resnet18", "all"), SIZE)
    batch = images()
    (crossing,) = halves.prefix(batch)
    assert crossing is batch
    assert halves.shapes == ((3, SIZE, SIZE),)


def test_suffix_takes_any_batch_and_leaves_what_it_is_given(
    network_of: Callable[[str, int], nn.Module],
) -> None:
    network = network_of("densenet121", SIZE)
    point = resolve(network, "densenet121", "conv5_block16_2_conv")
    halves = cut(network, point, SIZE)
    assert len(halves.shapes) == 17  # what the dense block gathered, and the bottleneck
    kept = halves.prefix(images(5))
    copies = [tensor.clone() for tensor in kept]
    halves.suffix.train()(*kept)
    assert all(torch.equal(*pair) for pair in zip(kept, copies, strict=True))
    whole = network.eval()(images(5))
    for count in (1, 5):
        scores = halves.suffix.eval()(*(tensor[:count] for tensor in kept))
        torch.testing.assert_close(scores, whole[:count])


@pytest.mark.parametrize(
    ("architecture", "shallow", "deep"),
    [
        ("densenet121", "features.denseblock4.denselayer3.conv2", "conv5_block16_2_conv"),
        ("mobilenet_v2", "all", "features.11"),
        ("vit_b_32", "encoder.layers.encoder_layer_2.mlp.0", "head"),
        ("swin_v2_t", "features.3.0.attn.cpb_mlp.0", "features.5.2.mlp.3"),
    ],
)
def test_deepening_equals_going_directly(
    architecture: str, shallow: str, deep: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    network = network_of(architecture, SIZE)
    near = resolve(network, architecture, shallow)
    far = resolve(network, architecture, deep)
    direct = cut(network, far, SIZE).prefix(images())
    kept = cut(network, near, SIZE).prefix(images())
    deepened = stages(network, [near, far], SIZE)[1](*kept)
    assert len(direct) == len(deepened)
    for one, other in zip(direct, deepened, strict=True):
        # stages fold batch norm into convolutions, which rounds otherwise
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * one.abs().max().item())


def test_stages_leave_the_network_and_its_norms_as_they_are() -> None:
    network = build("mobilenet_v2", classes=3, image_size=SIZE, seed=0).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    (stage,) = stages(network, [resolve(network, "mobilenet_v2", "features.3")], SIZE)
    stage(images())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in stage.modules())
    assert network.features[0][1].training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_norm_after_a_layer_that_runs_twice_is_not_folded() -> None:
    torch.manual_seed(0)
    network = ConvolutionUsedTwice().eval()
    for norm in (network.first, network.second):
        norm.running_mean.copy_(torch.randn(3))
    (point,) = [point for point in cut_points(network, "layers") if point.name == "fc"]
    (stage,) = stages(network, [point], SIZE)
    torch.testing.assert_close(stage(images())[0], cut(network, point, SIZE).prefix(images())[0])


class ConvolutionUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 1)
        self.first = nn.BatchNorm2d(3)
        self.second = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.shared(self.first(self.shared(x))))
        return self.fc(x.mean((2, 3)))


def test_stages_lead_from_point_to_point() -> None:
    network = build("squeezenet1_1", classes=3, image_size=SIZE, seed=0)
    points = cut_points(network, "blocks")
    crossing = (images(),)
    for point, stage in zip(points, stages(network, points, SIZE), strict=True):
        crossing = stage(*crossing)
        direct = cut(network, point, SIZE).prefix(images())
        assert all(torch.equal(*pair) for pair in zip(crossing, direct, strict=True))


class LayerUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.shared = nn.Linear(3, 3)
        self.between = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(self.between(self.shared(self.pool(x).flatten(1))))


def test_a_layer_on_both_sides_cannot_be_cut() -> None:
    network = LayerUsedTwice()
    (_, point) = cut_points(network, "layers")
    assert point == CutPoint("between", 3)
    with pytest.raises(MedtlError, match=r"LayerUsedTwice cannot be cut at between: shared\."):
        cut(network, point, SIZE)
