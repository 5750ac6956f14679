"""Networks of cases with several images, and the parallel CNN: shapes, names, weights, cuts."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.flops import cut_costs
from medtl.networks.partition import cut, stages
from medtl.networks.pooled_features import pooled
from medtl.networks.pretrained import load_weights, preprocessing
from medtl.networks.registry import build

SIZE = 32


def cases(modalities: int, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3 * modalities, SIZE, SIZE, generator=generator)


@pytest.mark.parametrize("architecture", ["late_fusion", "transmed_ti"])
def test_cases_of_two_images_joined_at_every_block(architecture: str) -> None:
    network = build(architecture, classes=3, image_size=SIZE, seed=0, modalities=2).eval()
    whole = network(cases(2))
    assert whole.shape == (3, 3)
    assert (whole[0] - whole[1]).abs().max() > 1e-4
    points = cut_points(network, "blocks")
    crossing = (cases(2),)
    for point, stage in zip(points[1:], stages(network, points[1:], SIZE), strict=True):
        crossing = stage(*crossing)
        assert all(len(tensor) == 3 for tensor in crossing), point
        assert pooled(crossing).shape[1] <= 2 * 512
    suffix = cut(network, points[-1], SIZE).suffix
    torch.testing.assert_close(suffix(*crossing), whole, rtol=0, atol=1e-4)
    assert cut_costs(network, "blocks", SIZE)[0].frozen_flops == 0


@pytest.mark.parametrize(
    ("architecture", "cutoff"),
    [
        ("late_fusion", "cnn.layer4"),
        ("transmed_ti", "projection"),
        ("transmed_ti", "class_token"),
        ("parallel_cnn", "block3.branches.1"),
    ],
)
def test_what_is_frozen_stays_equal_to_the_bit(architecture: str, cutoff: str) -> None:
    modalities = 1 if architecture == "parallel_cnn" else 2
    network = build(architecture, 3, SIZE, seed=0, modalities=modalities).eval()
    whole = network(cases(modalities))
    halves = cut(network, resolve(network, architecture, cutoff), SIZE)
    suffix = halves.suffix.eval()
    torch.testing.assert_close(suffix(*halves.prefix(cases(modalities))), whole)
    before = copy.deepcopy(network.state_dict())
    network.train()
    optimizer = torch.optim.SGD(suffix.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    scores = suffix.train()(*halves.prefix(cases(modalities)))
    nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2])).backward()
    optimizer.step()
    trained = {name for name, _ in suffix.named_parameters()}
    after = network.state_dict()
    frozen = [name for name in before if name not in suffix.state_dict()]
    assert len(frozen) > 10
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert all(not torch.equal(before[name], after[name]) for name in trained)


@torch.no_grad()
def test_each_modality_counts_and_the_cnn_is_shared() -> None:
    network = build("late_fusion", classes=3, image_size=SIZE, seed=0, modalities=2).eval()
    first, second = cases(2).split(3, dim=1)
    features = torch.cat([network.cnn(first), network.cnn(second)], dim=1)
    torch.testing.assert_close(network(cases(2)), network.fc(features))
    swapped = torch.cat([second, first], dim=1)
    for architecture in ("late_fusion", "transmed_ti"):
        network = build(architecture, classes=3, image_size=SIZE, seed=0, modalities=2).eval()
        assert (network(swapped) - network(cases(2))).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("architecture", ["late_fusion", "transmed_ti"])
def test_a_missing_image_is_not_read(architecture: str) -> None:
    network = build(architecture, classes=3, image_size=SIZE, seed=0, modalities=2).eval()
    masked = cases(2)
    masked[:, 3:] = 0
    expected = network(masked)
    assert (expected - network(cases(2))).abs().max() > 1e-4
    # whatever the CNN would make of a black image
    for norm in network.cnn.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.register_forward_hook(_spoil_black)
    torch.testing.assert_close(network(masked), expected)


def _spoil_black(norm: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    black = inputs[0].flatten(1).std(dim=1) == 0
    return output + 7.0 * black.view(-1, 1, 1, 1)


@torch.no_grad()
def test_a_token_is_of_one_patch_in_reading_order() -> None:
    network = build("transmed_ti", classes=3, image_size=SIZE, seed=0, modalities=2)
    marked = torch.zeros(2, 6, SIZE, SIZE)
    marked[1, 3:, 8:16, 16:24] = 1  # the second image of the second case, row 1, column 2
    patches = network._patches(marked)
    assert patches.shape == (2 * 2 * 16, 3, 8, 8)
    (place,) = patches.flatten(1).any(1).nonzero().flatten().tolist()
    assert place == 32 + 16 + 4 + 2
    assert patches[place].all()


@torch.no_grad()
def test_places_and_modalities_are_told_apart_by_learned_vectors_alone() -> None:
    network = build("transmed_ti", classes=3, image_size=SIZE, seed=0, modalities=2).eval()
    moved = torch.roll(cases(2), SIZE // 4, dims=3)  # every patch one place further to the right
    swapped = torch.cat([*reversed(cases(2).split(3, dim=1))], dim=1)
    for changed, vectors in ((moved, network.positions), (swapped, network.modality)):
        assert (network(changed) - network(cases(2))).abs().max() > 1e-4
        vectors.zero_()
        torch.testing.assert_close(network(changed), network(cases(2)), rtol=0, atol=1e-4)


def test_transmed_learns_a_relation_between_two_images() -> None:
    generator = torch.Generator().manual_seed(2)
    count = 8
    first = torch.arange(count) % 2
    labels = (torch.arange(count) // 2) % 2  # are the two images equally bright?
    signs = 2.0 * torch.stack([first, first ^ labels], dim=1) - 1
    images = 0.3 * torch.randn(count, 6, 16, 16, generator=generator)
    images += signs.repeat_interleave(3, dim=1)[:, :, None, None]
    network = build("transmed_ti:small_resnet", 2, 16, seed=0, modalities=2).train()
    network.encoder = network.encoder[:2]  # of twelve layers, for time
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(20):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize(
    ("architecture", "width", "heads"),
    [("transmed", 192, 3), ("transmed_s:resnet34", 384, 6), ("transmed_b", 768, 12)],
)
def test_sizes_of_transmed(architecture: str, width: int, heads: int) -> None:
    network = build(architecture, classes=2, image_size=SIZE, seed=0)
    assert network.head.in_features == width
    assert [layer.self_attention.num_heads for layer in network.encoder] == 12 * [heads]
    blocks = [point.name for point in cut_points(network, "blocks")]
    assert blocks[0] == "cnn.conv1"
    assert blocks[-14:] == [*(f"encoder.{n}" for n in range(12)), "norm", "head"]


@pytest.mark.parametrize("architecture", ["transmed_ti", "late_fusion:resnet18"])
def test_imagenet_weights_go_into_the_cnn(architecture: str) -> None:
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, folder / "resnet18-f37072fd.pth")
    network = build(architecture, classes=3, image_size=SIZE, seed=0)
    others = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("cnn.")}
    assert load_weights(network, architecture, "imagenet").preprocessing == preprocessing(
        "resnet18"
    )
    loaded = network.cnn.state_dict()
    assert loaded.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in others.items())


@pytest.mark.parametrize("architecture", ["transmed_ti:small_resnet", "late_fusion:small_resnet"])
def test_weights_of_the_network_that_reads_images_go_into_it(
    architecture: str, tmp_path: Path
) -> None:
    state = build("small_resnet", classes=7, image_size=SIZE, seed=5).state_dict()
    save_file(state, tmp_path / "encoder.safetensors")
    network = build(architecture, classes=3, image_size=SIZE, seed=0, modalities=2)
    others = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("cnn.")}
    expected = load_weights(
        network, architecture, str(tmp_path / "encoder.safetensors")
    ).preprocessing
    assert expected == preprocessing("small_resnet")
    loaded = network.cnn.state_dict()
    assert loaded.keys() == state.keys() - {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
    after = network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in others.items())
    other = build("squeezenet1_1", classes=7, image_size=SIZE, seed=5).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(MedtlError, match=r"does not fit .*missing: "):
        load_weights(network, architecture, str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("architecture", ["parallel_cnn", "dual:small_resnet+parallel_cnn"])
def test_nothing_is_published_for_networks_all_of_the_project(architecture: str) -> None:
    network = build(architecture, classes=2, image_size=SIZE, seed=0)
    assert load_weights(network, architecture, "random").preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(ParameterError, match="has none: give random, a file, or"):
        load_weights(network, architecture, "imagenet")


@pytest.mark.parametrize("size", [32, 64, 97])
def test_parallel_cnn_takes_images_of_any_size(size: int) -> None:
    network = build("parallel_cnn", classes=4, image_size=size, seed=0)
    assert network.train()(torch.rand(2, 3, size, size)).shape == (2, 4)


@pytest.mark.parametrize("architecture", ["resnet18", "parallel_cnn", "dual:resnet18+resnet18"])
def test_all_others_take_one_image(architecture: str) -> None:
    with pytest.raises(ParameterError, match=f"architecture={architecture.split('+')[0]}.*have 2"):
        build(architecture, classes=2, image_size=SIZE, seed=0, modalities=2)


@pytest.mark.parametrize(
    ("architecture", "answer"),
    [
        ("transmed_ti:resnet_50", "transmed_ti:resnet50"),
        ("late_fusion:vgg16", "late_fusion:.*res"),
        ("transmed_t", "transmed_ti"),
        ("transmed:small_resnett", "transmed:small_resnet"),
        ("transmed_ti:", "transmed_ti:.*res"),
        ("resnet18:resnet18", "resnet18"),
        ("parallelcnn", "parallel_cnn"),
    ],
)
def test_a_wrong_name_is_answered_with_a_right_one(architecture: str, answer: str) -> None:
    with pytest.raises(ParameterError, match=rf"nearest names are .*{answer}"):
        build(architecture, classes=2, image_size=SIZE, seed=0)


def test_patches_must_fill_the_image() -> None:
    with pytest.raises(ParameterError, match=r"image_size=33 .*transmed_ti"):
        build("transmed_ti", classes=2, image_size=33, seed=0)
