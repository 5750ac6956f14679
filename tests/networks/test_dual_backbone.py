"""Two networks joined: their maps, the order of their operations, and a cut-off for each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import ParameterError
from medtl.networks.architectures.dual_backbone import LastMap
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.partition import cut
from medtl.networks.pretrained import load_state, load_weights, preprocessing
from medtl.networks.registry import build

NAME = "dual:resnet18+squeezenet1_1"
SIZE = 64


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def built() -> nn.Module:
    """Not to be changed."""
    return build(NAME, classes=3, image_size=SIZE, seed=0).eval()


@torch.no_grad()
def test_the_scores_are_those_of_two_torchvision_networks_joined(
    network_of: Callable[[str, int], nn.Module],
) -> None:
    network = network_of(NAME, SIZE)
    resnet = torchvision.models.resnet18(num_classes=2).eval()
    resnet.load_state_dict(network.first.state_dict(), strict=False)
    squeezenet = torchvision.models.squeezenet1_1(num_classes=2).eval()
    squeezenet.load_state_dict(network.second.state_dict(), strict=False)
    first = nn.Sequential(*list(resnet.children())[:-2])(images())
    second = squeezenet.features(images())
    assert (first.shape[-1], second.shape[-1]) == (2, 3)
    head = network.head
    joined = head.first(first) + F.adaptive_avg_pool2d(head.second(second), 2)
    expected = head.dense(joined.mean((2, 3)))
    assert head.first.weight.shape[:1] == head.second.weight.shape[:1] == (1024,)
    torch.testing.assert_close(network(images()), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_halves_of_one_structure_are_kept_apart() -> None:
    network = build("dual:small_resnet+small_resnet", 3, SIZE, seed=0).eval()
    expected = 0
    for half in ("first", "second"):
        alone = build("small_resnet", 2, SIZE, seed=1).eval()
        missing, unexpected = alone.load_state_dict(
            getattr(network, half).state_dict(), strict=False
        )
        assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
        alone.avgpool = alone.fc = nn.Identity()
        side = SIZE // 16
        last = alone(images()).unflatten(1, (-1, side, side))
        expected = expected + getattr(network.head, half)(last)
    expected = network.head.dense(expected.mean((2, 3)))
    torch.testing.assert_close(network(images()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "channels", "side"),
    [
        ("alexnet", 256, 6),
        ("convnext_tiny", 768, 7),
        ("densenet121", 1024, 7),
        ("efficientnet_b0", 1280, 7),
        ("googlenet", 1024, 7),
        ("inception_v3", 2048, 5),
        ("maxvit_t", 512, 7),
        ("mnasnet0_5", 1280, 7),
        ("mobilenet_v3_small", 576, 7),
        ("regnet_y_400mf", 440, 7),
        ("resnet18", 512, 7),
        ("shufflenet_v2_x0_5", 1024, 7),
        ("squeezenet1_0", 512, 13),
        ("swin_t", 768, 7),
    ],
)
def test_the_last_map_of_each_family(architecture: str, channels: int, side: int) -> None:
    options = {}
    if architecture in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False}
    # RegNet computes its widths with tensors
    with torch.device("cpu" if architecture.startswith("regnet") else "meta"):
        network = torchvision.models.get_model(architecture, **options)
    last = LastMap.of(network, image_size=224)
    assert (last.channels, last.side) == (channels, side)
    held = {name for name, _ in last.holder().named_parameters()}
    assert held
    head = {"classifier", "head", "fc"}
    assert {name for name, _ in network.named_parameters()} - held == {
        name for name, _ in network.named_parameters() if name.partition(".")[0] in head
    }


def test_a_cut_freezes_as_much_of_the_one_half_as_of_the_other(built: nn.Module) -> None:
    names = [point.name for point in cut_points(built, "blocks")]
    assert names[0] == "first.conv1"
    assert names[-1] == "head"
    begun = {"first": 0, "second": 0}
    counts = {half: sum(name.startswith(half) for name in names) for half in begun}
    assert counts == {"first": 9, "second": 9}
    for name in names[:-1]:
        begun[name.partition(".")[0]] += 1
        assert abs(begun["first"] / counts["first"] - begun["second"] / counts["second"]) < 0.2


def trained_layers(architecture: str, prefix: str, cutoff: str) -> set[str]:
    """The layers of one of torchvision's networks from a cut-off on, but for its head."""
    network = torchvision.models.get_model(architecture)
    names = [point.name for point in cut_points(network, "layers")][:-1]
    if cutoff == "head":
        return set()
    return {f"{prefix}.{name}" for name in names[0 if cutoff == "all" else names.index(cutoff) :]}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("layer4.0.conv1", "features.3.squeeze"),
        ("layer1.0.conv1", "features.12.expand3x3"),
        ("all", "head"),
        ("head", "features.10.squeeze"),
    ],
)
def test_each_half_is_trained_from_its_own_layer_on(
    first: str, second: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    network = network_of(NAME, SIZE)
    whole = network(images())
    halves = cut(network, resolve(network, NAME, f"{first}+{second}"), SIZE)
    torch.testing.assert_close(halves.suffix.eval()(*halves.prefix(images())), whole)

    before = copy.deepcopy(network.state_dict())
    halves.prefix.train()
    halves.suffix.train()
    optimizer = torch.optim.SGD(halves.suffix.parameters(), lr=0.01, weight_decay=0.1)
    scores = halves.suffix(*halves.prefix(images()))
    nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
    optimizer.step()
    after = network.state_dict()
    moved = {name.rpartition(".")[0] for name in before if not before[name].equal(after[name])}
    assert moved == {
        *trained_layers("resnet18", "first", first),
        *trained_layers("squeezenet1_1", "second", second),
        *("head.first", "head.second", "head.dense"),
    }


def test_one_cut_has_one_key_and_another_has_another(built: nn.Module) -> None:
    def key(cutoff: str) -> tuple[int, ...]:
        return resolve(built, NAME, cutoff).key

    assert key("head+head") == key("head")
    assert key("all+all") == key("conv1+features.0") == key("all") == (0,)
    assert key("layer1+features.3") == key("layer1.0.conv1+features.3.squeeze")
    # the first operation that is trained is the same, what is frozen beyond it is not
    same_start = [key(f"layer1+features.{n}") for n in (9, 11)]
    assert same_start[0][0] == same_start[1][0]
    assert len({*same_start, key("first.layer1")}) == 3


def test_names_of_keras_for_a_half() -> None:
    name = "dual:squeezenet1_1+resnet50"
    network = build(name, classes=2, image_size=SIZE, seed=0)
    ours = resolve(network, name, "features.9+layer4.0.conv1")
    assert resolve(network, name, "features.9+conv5_block1_1_conv").key == ours.key
    assert resolve(network, name, "second.conv5_block1_1_conv").position > 0


@pytest.mark.parametrize(
    ("cutoff", "answer"),
    [
        ("layer5+features.3", r"cutoff=layer5\+features\.3 .* of first\.layer5.*first\.layer"),
        ("layer4+features.99", r"of second\.features\.99.*second\.features\.9"),
        ("layer4+features.3+head", "no such layer"),
        ("first.fc", "no such layer"),
        ("head.dense", "a part of the head: cut at head"),
    ],
)
def test_a_wrong_cutoff(built: nn.Module, cutoff: str, answer: str) -> None:
    with pytest.raises(ParameterError, match=answer):
        resolve(built, NAME, cutoff)


def test_a_sum_of_names_is_for_duals_only() -> None:
    network = build("squeezenet1_1", classes=2, image_size=32, seed=0)
    with pytest.raises(ParameterError, match=r"features\.3\+head .*no such layer"):
        resolve(network, "squeezenet1_1", "features.3+head")


@pytest.mark.parametrize(
    ("architecture", "answer"),
    [
        ("dual:resnet_18+squeezenet1_1", r"dual:resnet18\+squeezenet1_1"),
        ("dual:vit_b_16+resnet18", "two that make maps"),
        ("dual:transmed_ti+resnet18", "two that make maps"),
        ("dual:resnet18", r"dual:ARCH\+ARCH"),
        ("dual", r"dual:ARCH\+ARCH"),
    ],
)
def test_a_wrong_pair(architecture: str, answer: str) -> None:
    with pytest.raises(ParameterError, match=answer):
        build(architecture, classes=2, image_size=SIZE, seed=0)


def test_images_that_a_half_cannot_take() -> None:
    with pytest.raises(ParameterError, match=r"image_size=32 .*dual:alexnet\+resnet18"):
        build("dual:alexnet+resnet18", classes=2, image_size=32, seed=0)


def test_imagenet_weights_go_into_both_halves() -> None:
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    published = {
        "first": ("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
        "second": ("mobilenet_v2", "mobilenet_v2-b0353104.pth"),
    }
    states = {}
    for half, (architecture, file) in published.items():
        states[half] = build(architecture, 1000, 32, seed=9).state_dict()
        torch.save(states[half], folder / file)
    name = "dual:squeezenet1_1+mobilenet_v2"
    network = build(name, classes=3, image_size=SIZE, seed=0)
    head = copy.deepcopy(network.head.state_dict())
    expected = load_weights(network, name, "imagenet").preprocessing
    assert expected == preprocessing("squeezenet1_1")
    for half, state in states.items():
        loaded = network.get_submodule(half).state_dict()
        assert len(loaded) > 40
        for layer, value in loaded.items():
            assert torch.equal(value, state[layer]), f"{half}.{layer}"
    assert all(torch.equal(head[key], value) for key, value in network.head.state_dict().items())


def test_weights_of_a_dual_fit_a_dual_of_other_classes(built: nn.Module, tmp_path: Path) -> None:
    save_file(built.state_dict(), tmp_path / "dual.safetensors")
    same = build(NAME, classes=3, image_size=SIZE, seed=5).eval()
    load_weights(same, NAME, str(tmp_path / "dual.safetensors"))
    assert torch.equal(same(images()), built(images()))
    other = build(NAME, classes=5, image_size=SIZE, seed=5)
    dense = other.head.dense.weight.clone()
    load_state(other, NAME, built.state_dict(), "the source")
    assert torch.equal(other.head.first.weight, built.head.first.weight)
    assert torch.equal(other.head.dense.weight, dense)


def test_weights_that_want_images_normalised_otherwise_cannot_be_joined() -> None:
    with pytest.raises(ParameterError, match="normalised alike"):
        preprocessing("dual:efficientnet_v2_l+resnet18")


def test_a_copy_is_a_network_of_its_own(built: nn.Module) -> None:
    other = copy.deepcopy(built)
    with torch.no_grad():
        other.first.conv1.weight.zero_()
    halves = cut(other, resolve(other, NAME, "layer1+features.3"), SIZE)
    assert not torch.equal(halves.suffix(*halves.prefix(images())), built(images()))
    assert built.first.conv1.weight.any()
