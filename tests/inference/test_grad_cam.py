"""Heat maps lie where the network sees the class, whatever the layout of its maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from medtl.errors import MedtlError
from medtl.inference.explanation_cut import LEAST_SIDE, explanation_cut
from medtl.inference.grad_cam import grad_cam, heatmap_png
from medtl.inference.image_maps import as_map, places_a_side
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build


class RedOrBlue(nn.Module):
    """Scores how much red (class 0) and how much blue (class 1) an image has."""

    def __init__(self, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.colours = nn.Conv2d(3, 2, kernel_size=8, stride=8, bias=False)
        self.spread = nn.Conv2d(2, 6, kernel_size=1, bias=False)
        self.scores = nn.Linear(6, 2, bias=False)
        with torch.no_grad():
            self.colours.weight.zero_()
            self.colours.weight[0, 0] = self.colours.weight[1, 2] = 1 / 64
            self.spread.weight.copy_(torch.eye(2).repeat(3, 1)[..., None, None])
            self.scores.weight.copy_(torch.eye(2).repeat(1, 3) - 0.1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.spread(self.colours(images).relu()).relu()
        if self.channels_last:
            return self.scores(maps.permute(0, 2, 3, 1)).mean(dim=(1, 2))
        return self.scores(maps.mean(dim=(2, 3)))


class Tokens(nn.Module):
    """As `RedOrBlue`, on a sequence of tokens with a class token, and registers, before them."""

    def __init__(self, registers: int = 0) -> None:
        super().__init__()
        self.patches = RedOrBlue().colours
        self.class_token = nn.Parameter(torch.full((1, 1 + registers, 2), 9.0))
        self.mix = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(2))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        first = self.class_token.expand(patches.shape[0], -1, -1)
        return self.mix(torch.cat([first, patches], dim=1)).mean(dim=1)


def red_above_blue_below() -> Tensor:
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 0:8, 8:16] = 1
    images[:, 2, 24:32, 16:24] = 1
    return images


def hottest(heat: np.ndarray) -> tuple[int, int]:
    """The 8 x 8 patch with the most heat, as (row, column)."""
    patches = heat.reshape(4, 8, 4, 8).sum(axis=(1, 3))
    return tuple(int(i) for i in np.unravel_index(patches.argmax(), patches.shape))


NETWORKS = [
    (RedOrBlue(), "spread"),
    (RedOrBlue(channels_last=True), "scores"),
    (Tokens(), "mix"),
    (Tokens(registers=4), "mix"),
]


@pytest.mark.parametrize(
    ("network", "cutoff"), NETWORKS, ids=["NCHW", "NHWC", "tokens", "registers"]
)
def test_each_class_is_found_at_its_place(network: nn.Module, cutoff: str):
    halves = cut(network, resolve(network, "small_resnet", cutoff), 32)
    images = red_above_blue_below().repeat(2, 1, 1, 1)
    red, blue = grad_cam(halves, images, torch.tensor([0, 1]))
    assert red.shape == (32, 32)
    assert (hottest(red), hottest(blue)) == ((0, 1), (3, 2))
    for heat in (red, blue):
        assert (heat.min(), heat.max()) == (0, 1)


def test_what_speaks_against_a_class_is_cold():
    network = RedOrBlue()
    halves = cut(network, resolve(network, "small_resnet", "spread"), 32)
    only_blue = red_above_blue_below()
    only_blue[:, 0] = 0
    assert not grad_cam(halves, only_blue, 0).any()


def test_it_leaves_no_trace_and_works_in_inference_mode():
    network = build("mobilenet_v2", classes=3, image_size=64, seed=0).train()
    halves = cut(network, resolve(network, "mobilenet_v2", "features.14"), 64)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    expected = grad_cam(halves, images, [2, 1])
    with torch.inference_mode():
        found = grad_cam(halves, images.clone(), torch.tensor([2, 1]))
    np.testing.assert_array_equal(found, expected)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_other_weights_give_another_map():
    # The sanity check of Adebayo et al. 2018, arXiv 1810.03292.
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    maps = []
    for seed in (0, 1):
        network = build("resnet18", classes=2, image_size=64, seed=seed)
        halves = cut(network, resolve(network, "resnet18", "layer3"), 64)
        maps.append(np.concatenate([grad_cam(halves, images, index) for index in (0, 1)]).ravel())
    assert np.corrcoef(*maps)[0, 1] < 0.7


def test_features_without_places_are_refused():
    network = build("mobilenet_v2", classes=2, image_size=64, seed=0)
    halves = cut(network, resolve(network, "mobilenet_v2", "head"), 64)
    with pytest.raises(MedtlError, match=r"the cut classifier\.1 is a map"):
        grad_cam(halves, torch.rand(1, 3, 64, 64), 0)


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((8, 5, 5), 5),
        ((5, 5, 8), 5),
        ((25, 8), 5),
        ((26, 8), 5),
        ((30, 8), 5),
        ((31, 8), 0),
        ((8,), 0),
        ((8, 1, 1), 0),
        ((8, 5, 4), 0),
        ((24, 8), 0),
        ((4, 49, 96), 0),
        ((2, 4, 5, 5), 0),
    ],
)
def test_places_of_a_shape(shape: tuple[int, ...], side: int):
    assert places_a_side(shape) == side


def test_every_layout_becomes_the_same_map():
    expected = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    tokens = expected.flatten(2).transpose(1, 2)
    with_class_token = torch.cat([torch.full((2, 1, 3), -1.0), tokens], dim=1)
    for tensor in (expected, expected.permute(0, 2, 3, 1), tokens, with_class_token):
        torch.testing.assert_close(as_map(tensor), expected)


@pytest.mark.parametrize(
    ("shape", "side"), [((2, 8, 5, 5), 5), ((50, 8), 5), ((51, 8), 5), ((8, 5, 5), 0), ((25, 8), 0)]
)
def test_places_of_a_case_of_two_images(shape: tuple[int, ...], side: int):
    assert places_a_side(shape, images=2) == side


def test_the_images_of_a_case_lie_side_by_side():
    expected = torch.arange(2 * 3 * 4 * 8.0).reshape(2, 3, 4, 8)
    folded = torch.stack(expected.split(4, dim=3), dim=1)
    tokens = folded.flatten(3).transpose(2, 3).flatten(1, 2)
    with_class_token = torch.cat([torch.full((2, 1, 3), -1.0), tokens], dim=1)
    for tensor in (folded, tokens, with_class_token):
        torch.testing.assert_close(as_map(tensor, images=2), expected)


@pytest.mark.parametrize(
    ("architecture", "shape"), [("late_fusion", (2, 512, 4, 4)), ("transmed_ti", (33, 192))]
)
def test_a_case_is_explained_over_all_its_images(architecture: str, shape: tuple[int, ...]):
    network = build(architecture, classes=2, image_size=128, seed=0, modalities=2).eval()
    halves = explanation_cut(network, 128)
    assert shape in halves.shapes
    images = torch.rand(2, 6, 128, 128, generator=torch.Generator().manual_seed(0))
    heats = grad_cam(halves, images, 0)
    assert heats.shape == (2, 128, 256)
    torch.testing.assert_close(halves.suffix(*halves.prefix(images)), network(images))


@pytest.mark.parametrize(
    ("architecture", "image_size", "shape"),
    [
        ("resnet18", 128, (512, 4, 4)),  # what the last pooling takes
        ("resnet18", 64, (256, 4, 4)),  # the output of the stage before
        ("squeezenet1_1", 96, (512, 5, 5)),  # its head pools before the output layer
    ],
)
def test_the_deepest_useful_map_is_found(architecture: str, image_size: int, shape: tuple):
    network = build(architecture, classes=2, image_size=image_size, seed=0).eval()
    images = torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    expected = network(images)
    halves = explanation_cut(network, image_size)
    assert halves.shapes == (shape,)
    torch.testing.assert_close(halves.suffix(*halves.prefix(images)), expected)


def test_a_vision_transformer_is_explained_before_its_last_attention():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VisionTransformer(
            image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16
        )
        nn.init.normal_(network.heads.head.weight)
    halves = explanation_cut(network, 32)
    assert halves.shapes == ((17, 8),)
    kept = " ".join(name for name, _ in halves.suffix.named_parameters())
    assert "encoder_layer_2.ln_1" in kept
    assert "encoder_layer_1" not in kept
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert grad_cam(halves, images, 0).shape == (3, 32, 32)


def test_the_tokens_of_transformers_are_put_where_their_patches_are():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        swin = SwinTransformer([2, 2], 16, [1, 1], [2, 2], [4, 4], num_classes=2).eval()
        vit = VisionTransformer(32, 4, 2, 2, hidden_dim=16, mlp_dim=16, num_classes=2).eval()
        nn.init.normal_(swin.head.weight)
        nn.init.normal_(vit.heads.head.weight)
    images = torch.zeros(2, 3, 32, 32)
    images[1, :, 4:8, 20:24] = 2
    for network, shape in ((swin, (32, 8, 8)), (vit, (65, 16))):
        halves = explanation_cut(network, 32)
        assert halves.shapes == (shape,)
        (crossing,) = halves.prefix(images)
        plain, changed = as_map(crossing)
        most = (changed - plain).abs().sum(dim=0).argmax()
        assert divmod(int(most), 8) == (1, 5)
        assert grad_cam(halves, images, 0).shape == (2, 32, 32)


TIMM = [
    # a class token; one more of distillation; four registers; windows of maps [H, W, C]
    ("test_vit", 96, (37, 64)),
    ("deit_tiny_distilled_patch16_224?depth=2&embed_dim=48&num_heads=3", 96, (38, 48)),
    ("vit_small_patch14_reg4_dinov2?depth=2&embed_dim=48&num_heads=3", 84, (41, 48)),
    (
        "swin_tiny_patch4_window7_224?embed_dim=16&depths=[1,1]&num_heads=[2,2]&window_size=4",
        64,
        (8, 8, 32),
    ),
    ("hiera_tiny_224?embed_dim=24&num_heads=1&stages=[1,1,1,1]", 128, (16, 192)),
]


def sensitive(architecture: str, image_size: int) -> nn.Module:
    """A network in which no parameter hides others, as the zeros of an initial head do."""
    network = build(architecture, classes=2, image_size=image_size, seed=0).eval()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(2)
        for parameter in network.parameters():
            if parameter.min() == parameter.max():
                parameter += 0.1 * torch.randn(parameter.shape)
    return network


@pytest.mark.parametrize(("name", "size", "shape"), TIMM)
def test_the_tokens_of_timms_transformers_are_put_where_their_patches_are(
    name: str, size: int, shape: tuple[int, ...]
):
    halves = explanation_cut(sensitive(f"timm:{name}", size), size)
    assert halves.shapes == (shape,)
    side = places_a_side(shape)
    row, column, step = side // 4, side // 2, size // side
    images = 0.1 * torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    images[1] = images[0]
    images[1, :, row * step : (row + 1) * step, column * step : (column + 1) * step] += 2
    (crossing,) = halves.prefix(images)
    plain, changed = as_map(crossing)
    most = (changed - plain).abs().sum(dim=0).argmax()
    assert divmod(int(most), side) == (row, column)
    assert grad_cam(halves, images, 0).shape == (2, size, size)


def test_tokens_that_are_ordered_by_windows_are_no_map():
    name = "timm:hiera_tiny_224?embed_dim=24&num_heads=1&stages=[1,1,1,1]"
    with pytest.raises(MedtlError, match="no map of 4 x 4 places at image_size 96"):
        explanation_cut(sensitive(name, 96), 96)


class Tokens(nn.Module):
    """Tokens of patches in the order of `order`, in two branches if it is of two."""

    def __init__(self, *orders: Tensor, mixing: float = 0) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(nn.Conv2d(3, 8, 8, stride=8) for _ in orders)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.GELU()) for _ in orders
        )
        self.orders, self.mixing = orders, mixing
        self.fc = nn.Linear(8 * len(orders), 2)

    def forward(self, images: Tensor) -> Tensor:
        branches = []
        for embed, order in zip(self.embeds, self.orders, strict=True):
            tokens = embed(images).flatten(2).transpose(1, 2)[:, order]
            mean = tokens.mean(dim=1, keepdim=True)
            branches.append(tokens + self.mixing * (mean - tokens))
        found = [
            (tokens + block(tokens)) * tokens.sum(dim=1, keepdim=True)
            for tokens, block in zip(branches, self.blocks, strict=True)
        ]
        return self.fc(torch.cat([tokens.mean(dim=1) for tokens in found], dim=1))


PLACES = torch.arange(64)
IN_ROWS = PLACES.unflatten(0, (8, 8))


def built(*orders: Tensor, mixing: float = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokens(*orders, mixing=mixing).eval()


def test_tokens_of_two_branches_give_one_map():
    network = built(PLACES, PLACES)
    halves = explanation_cut(network, 64)
    assert halves.shapes == ((64, 8), (64, 8))
    images = torch.zeros(2, 3, 64, 64)
    images[1, :, 8:16, 40:48] = 4
    heats = [grad_cam(halves, images, each)[1] for each in range(2)]
    assert (1, 5) in [divmod(int(each[4::8, 4::8].argmax()), 8) for each in heats]
    torch.testing.assert_close(halves.suffix(*halves.prefix(images)), network(images))


@pytest.mark.parametrize(
    "network",
    [
        built(IN_ROWS.T.flatten()),
        built(IN_ROWS.flip(0).flatten()),
        built(IN_ROWS.unflatten(0, (2, 4)).unflatten(2, (2, 4)).transpose(1, 2).flatten()),
        built(PLACES, IN_ROWS.T.flatten()),
        built(PLACES, mixing=1),
    ],
    ids=["transposed", "upside down", "windows", "one of two branches", "no place left"],
)
def test_tokens_that_are_not_where_their_patches_are_give_no_map(network: nn.Module):
    with pytest.raises(MedtlError, match="that keeps the places of the image") as raised:
        explanation_cut(network, 64)
    assert "\n" not in str(raised.value)


def test_two_branches_of_timm_give_one_map():
    name = "timm:crossvit_tiny_240?embed_dim=[16,32]&depth=[[1,1,0],[1,1,0]]&num_heads=[2,2]"
    halves = explanation_cut(sensitive(name, 240), 240)
    assert halves.shapes == ((401, 16), (197, 32))
    heats = grad_cam(halves, torch.rand(1, 3, 240, 240), 0)
    assert heats.shape == (1, 240, 240)
    assert heats.max() == 1


class UsedTwice(nn.Module):
    """One convolution runs before and after the deepest maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.later = nn.Conv2d(3, 4, 8, stride=8), nn.Conv2d(4, 4, 3, padding=1)
        self.twice, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.later(self.twice(self.first(images)).relu()).relu()
        return self.fc(self.twice(maps.mean(dim=(2, 3), keepdim=True)).flatten(1))


def test_a_layer_that_is_used_twice_is_on_one_side_of_the_cut():
    halves = explanation_cut(UsedTwice(), 32)
    trained = {name.partition(".")[0] for name, _ in halves.suffix.named_parameters()}
    assert trained == {"later", "twice", "fc"}
    assert grad_cam(halves, torch.rand(2, 3, 32, 32), 0).shape == (2, 32, 32)


def test_images_too_small_to_explain_are_refused():
    network = build("alexnet", classes=2, image_size=64, seed=0)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(nn.Linear(256, 2))
    network.features = nn.Sequential(nn.Conv2d(3, 256, 32, stride=32), nn.ReLU())
    with pytest.raises(MedtlError, match=f"{LEAST_SIDE} x {LEAST_SIDE} places at image_size 64"):
        explanation_cut(network, 64)


@pytest.mark.parametrize(("channels", "depth"), [(1, np.uint8), (3, np.uint8), (1, np.uint16)])
def test_the_png_shows_the_image_through_the_cold_and_heat_over_the_hot(channels: int, depth):
    white = np.iinfo(depth).max
    image = np.full((channels, 6, 6), white // 2, dtype=depth)
    heat = np.zeros((6, 6))
    heat[2, 4] = 1
    picture = Image.open(io.BytesIO(heatmap_png(image, heat)))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (6, 6))
    pixels = np.asarray(picture).astype(int)
    assert np.abs(pixels[0, 0] - 127).max() <= 1
    red, _, blue = pixels[2, 4]
    assert red > blue > 127
