"""timm's networks: names, sizes, weights from its cache, and the cut at blocks and layers."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.architectures import timm_models
from medtl.networks.cutoffs import cut_points, resolve
from medtl.networks.flops import cut_costs
from medtl.networks.graph import trace
from medtl.networks.partition import borders, cut, part
from medtl.networks.pretrained import check_weights, load_state, load_weights, preprocessing
from medtl.networks.registry import build, find, outline, packages

SMALL = ("timm:test_vit", "timm:test_convnext", "timm:test_efficientnet")
SIDE = 96


def images(side: int = SIDE, count: int = 2) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_joined_equals_whole(network: nn.Module, side: int, least_blocks: int = 6) -> None:
    graph = trace(network)
    points = cut_points(network, "blocks")
    assert len(points) >= least_blocks
    known = borders(graph, points, side)
    crossing: tuple[Tensor, ...] = (images(side),)
    for start, stop in zip(known, [*known[1:], None], strict=True):
        crossing = part(graph, start, stop).eval()(*crossing)
    whole = network.eval()(images(side))
    torch.testing.assert_close(crossing, whole, rtol=0, atol=1e-4 * whole.abs().max().item())


@pytest.mark.parametrize("name", SMALL)
def test_parts_between_all_blocks_joined_equal_the_whole(
    name: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    network = network_of(name, SIDE)
    assert_joined_equals_whole(network, SIDE)
    frozen = [cost.frozen_flops for cost in cut_costs(network, "layers", SIDE)]
    assert frozen == sorted(frozen)
    assert frozen[0] == 0 < frozen[-1]


@pytest.mark.parametrize(
    ("name", "cutoff", "dropped"),
    [
        ("timm:test_vit", "blocks.4", "blocks"),
        ("timm:test_convnext", "stages.3.blocks.0.conv_dw", "stages.3"),
        ("timm:test_efficientnet", "head", "classifier"),
    ],
)
def test_training_moves_the_suffix_and_nothing_before_it(
    name: str, cutoff: str, dropped: str, network_of: Callable[[str, int], nn.Module]
) -> None:
    network = network_of(name, SIDE)
    halves = cut(network, resolve(network, name, cutoff), SIDE)
    before = copy.deepcopy(network.state_dict())
    optimizer = torch.optim.SGD(halves.suffix.parameters(), lr=0.1, momentum=0.9)
    network.train()
    scores = halves.suffix.train()(*halves.prefix(images()))
    nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
    optimizer.step()
    trained = {path for path, _ in halves.suffix.named_parameters()}
    after = network.state_dict()
    assert trained
    assert all(not torch.equal(before[path], after[path]) for path in trained)
    others = before.keys() - halves.suffix.state_dict().keys()
    assert others
    assert all(torch.equal(before[path], after[path]) for path in others)


@pytest.mark.parametrize(
    ("name", "first", "some", "last"),
    [
        ("timm:test_vit", "patch_embed", "blocks.3", "head"),
        ("timm:test_convnext", "stem.0", "stages.2.blocks.1", "head.fc"),
        ("timm:test_efficientnet", "conv_stem", "blocks.2.0", "classifier"),
        ("timm:swin_tiny_patch4_window7_224", "patch_embed", "layers.2.blocks.5", "head.fc"),
        ("timm:regnety_002", "stem", "s4.b6", "head.fc"),
        ("timm:caformer_s18", "stem", "stages.2.blocks.8", "head.fc"),
        ("timm:test_mambaout", "stem", "stages.2.blocks.0", "head"),
    ],
)
def test_blocks_are_found_within_stages(name: str, first: str, some: str, last: str) -> None:
    network = outline(name, preprocessing(name).image_size)
    names = [point.name for point in cut_points(network, "blocks")]
    assert names[0] == first
    assert some in names
    assert names[-1] == resolve(network, name, "head").name == last


def test_depth_drops_at_random_in_training_alone() -> None:
    network = timm.create_model("test_convnext", num_classes=3, drop_path_rate=0.9)
    build("timm:test_vit", classes=2, image_size=SIDE, seed=0)  # registers timm's layers
    halves = cut(network, resolve(network, "timm:test_convnext", "stages.1.blocks.0"), SIDE)
    crossing = halves.prefix(images())
    suffix = halves.suffix.eval()
    assert torch.equal(suffix(*crossing), suffix(*crossing))
    suffix.train()
    assert not torch.equal(suffix(*crossing), suffix(*crossing))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("timm:resnet_18", "timm:resnet18"),
        ("timm:test_vit.r16", r"timm:test_vit\.r160_in1k$"),
        ("timm:", "the nearest names are timm:"),
        ("timm", "the nearest names are timm:NAME"),
    ],
)
def test_a_wrong_name_is_answered_with_a_right_one(name: str, answer: str) -> None:
    with pytest.raises(ParameterError, match=answer):
        build(name, classes=2, image_size=SIDE, seed=0)


@pytest.mark.parametrize(
    ("name", "side", "answer"),
    [
        ("timm:test_vit", 100, "16 pixels; the nearest that it takes are 96 and 112"),
        ("timm:test_vit", 8, "the nearest that it takes are 16$"),
    ],
)
def test_an_image_size_that_does_not_fit_is_answered_with_the_nearest(
    name: str, side: int, answer: str
) -> None:
    with pytest.raises(ParameterError, match=f"image_size={side} .*{answer}") as raised:
        outline(name, side)
    assert "\n" not in str(raised.value)


def test_preprocessing_is_that_of_the_tag() -> None:
    plain, incept = preprocessing("timm:test_vit"), preprocessing("timm:vit_tiny_patch16_224")
    assert plain.image_size == 160
    assert plain.mean == timm.get_pretrained_cfg("test_vit").mean
    assert incept.mean == incept.std == (0.5, 0.5, 0.5)
    assert preprocessing("timm:vit_small_patch14_dinov2.lvd142m").image_size == 518


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub, empty, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(hub: Path, repository: str, state: dict[str, Tensor]) -> None:
    """Stores weights as the client of the hub does."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40, "utf-8")
    save_file(
        {name: value.contiguous() for name, value in state.items()}, snapshot / "model.safetensors"
    )


def test_weights_come_from_the_cache_of_timm(hub: Path) -> None:
    published = timm.create_model("test_vit", num_classes=1000, drop_rate=0)
    cached(hub, "timm/test_vit.r160_in1k", published.state_dict())
    for name in ("timm:test_vit", "timm:test_vit.r160_in1k"):
        network = build(name, classes=3, image_size=160, seed=0)
        head = network.head.weight.clone()
        check_weights(name, "imagenet")
        assert load_weights(network, name, "imagenet").preprocessing == preprocessing(name)
        loaded = network.state_dict()
        for path, value in published.state_dict().items():
            assert path.startswith("head.") or torch.equal(loaded[path], value), path
        assert torch.equal(network.head.weight, head)
    smaller = build("timm:test_vit", classes=1000, image_size=SIDE, seed=0)
    load_weights(smaller, "timm:test_vit", "imagenet")
    assert smaller.pos_embed.shape[1] < published.pos_embed.shape[1]
    assert torch.equal(smaller.blocks[0].mlp.fc1.weight, published.blocks[0].mlp.fc1.weight)
    torch.testing.assert_close(
        smaller.pos_embed.mean(), published.pos_embed.mean(), atol=2e-3, rtol=0
    )


def test_without_file_and_network_one_line_names_repository_file_and_folder(hub: Path) -> None:
    network = build("timm:test_convnext", classes=3, image_size=SIDE, seed=0)
    with pytest.raises(MedtlError) as raised:
        load_weights(network, "timm:test_convnext", "imagenet")
    message = str(raised.value)
    assert "model.safetensors of the repository timm/test_convnext.r160_in1k" in message
    assert str(hub) in message
    assert "\n" not in message


def test_a_network_without_published_weights_says_so() -> None:
    every = map(timm.get_pretrained_cfg, timm.list_models())
    name = next(f"timm:{each.architecture}" for each in every if not each.has_weights)
    with pytest.raises(ParameterError, match="has none"):
        check_weights(name, "imagenet")


def test_a_model_fits_networks_of_other_classes_and_sizes() -> None:
    trained = build("timm:test_vit", classes=5, image_size=SIDE, seed=1)
    network = build("timm:test_vit", classes=3, image_size=160, seed=0)
    load_state(network, "timm:test_vit", trained.state_dict(), "the source")
    assert torch.equal(network.blocks[5].mlp.fc2.weight, trained.blocks[5].mlp.fc2.weight)
    with pytest.raises(MedtlError, match="does not fit"):
        load_state(network, "timm:test_vit", {"blocks.0.x": torch.ones(1)}, "the source")


@pytest.mark.parametrize(
    ("name", "side"), [("timm:deit_tiny_distilled_patch16_224", 64), ("timm:levit_128s", 224)]
)
def test_output_layers_side_by_side_are_one_head(name: str, side: int) -> None:
    network = build(name, classes=3, image_size=side, seed=0)
    head = resolve(network, name, "head")
    assert cut_points(network, "blocks")[-1] == head
    suffix = cut(network, head, side).suffix
    trained = {path.partition(".")[0] for path, _ in suffix.named_parameters()}
    assert trained == {"head", "head_dist"}
    other = build(name, classes=2, image_size=side, seed=1)
    load_state(network, name, other.state_dict(), "the source")
    first = "blocks.0.mlp.fc1.weight" if side == 64 else "stem.conv1.linear.weight"
    assert torch.equal(network.state_dict()[first], other.state_dict()[first])


def test_dual_takes_those_with_maps() -> None:
    name = "dual:timm:test_convnext+small_resnet"
    network = build(name, classes=3, image_size=SIDE, seed=0).eval()
    names = [point.name for point in cut_points(network, "blocks")]
    assert {"first.stages.3.blocks.1", "second.layer4", "head"} <= set(names)
    assert_joined_equals_whole(network, SIDE)
    with pytest.raises(ParameterError, match="two that make maps"):
        build("dual:timm:test_vit+small_resnet", classes=3, image_size=SIDE, seed=0)


def test_a_served_model_needs_timm_and_nothing_else_imports_it() -> None:
    assert packages("timm:test_vit") == packages("dual:timm:test_resnet+resnet18") == ("timm",)
    assert packages("resnet18") == ()
    tree = ast.parse(Path(timm_models.__file__).read_text("utf-8"))
    at_once = [each for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom)]
    assert "timm" not in ast.unparse(ast.Module(at_once, []))


def test_a_dense_layer_before_the_output() -> None:
    network = build("timm:test_convnext", classes=3, image_size=SIDE, seed=0, hidden=16)
    assert network.head.fc.hidden.out_features == 16


# The smallest network of every file of timm with networks below 60 million parameters.
SMALLEST = """
caformer_s18 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 cpubone_nano crossvit_tiny_240
cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny deit_tiny_patch16_224 densenet121 dla34 dpn48b
edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientvim_m1 efficientvit_b0
efficientvit_m0 ese_vovnet19b_slim_dw fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
ghostnet_050 gmlp_ti16_224 halonet_h1 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small
iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnet_035
lcnetv2_small legacy_seresnet18 legacy_xception levit_384_s8 lowformer_b0 mobilevit_xxs
mvitv2_tiny nest_tiny nextvit_small pit_ti_224 pvt_v2_b0 rdnet_tiny regnetx_004_tv repghostnet_050
repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 sam2_hiera_tiny selecsls42 sequencer2d_s
shvit_s1 skresnet18 starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_cr_tiny_224
swinv2_tiny_window8_256 test_byobnet test_coatnet test_convnext test_efficientnet test_mambaout
test_nfnet test_resnet test_vit test_vit_relpos tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m
twins_svt_small visformer_tiny vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224
vitamin_small_224 volo_d1_224 xception41p xcit_nano_12_p8_224
""".split()


def assert_training_leaves_the_frozen_part(network: nn.Module, side: int) -> None:
    """Takes a step with all of the network in training mode, from a block in the later half on."""
    points = cut_points(network, "blocks")
    halves = None
    for point in points[3 * len(points) // 4 :]:
        try:
            halves = cut(network, point, side)
        except MedtlError:  # a layer is used on both sides
            continue
        break
    assert halves is not None
    own = tensors(halves.suffix).keys()
    before = {name: value.clone() for name, value in tensors(network).items()}
    assert before.keys() - own
    network.train()
    optimizer = torch.optim.AdamW(halves.suffix.parameters(), lr=0.01, weight_decay=0.1)
    scores = halves.suffix.train()(*halves.prefix(images(side)))
    nn.functional.cross_entropy(scores, torch.tensor([0, 1])).backward()
    optimizer.step()
    after = tensors(network)
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert moved <= own


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, also those outside the state dict."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_of_every_file_of_timm(name: str) -> None:
    usual, config = find(f"timm:{name}").preprocessing, timm.get_pretrained_cfg(name)
    only_usual = config.fixed_input_size or name == "halonet_h1"  # takes multiples of its blocks
    side = usual.image_size if only_usual else min(usual.image_size, 224)
    network = build(f"timm:{name}", classes=3, image_size=side, seed=0).eval()
    assert_joined_equals_whole(network, side, least_blocks=4)
    assert_training_leaves_the_frozen_part(network, side)


@pytest.mark.slow
def test_no_file_of_timm_is_forgotten() -> None:
    files = {timm.models.model_entrypoint(name).__module__ for name in timm.list_models()}
    tested = {timm.models.model_entrypoint(name).__module__ for name in SMALLEST}
    assert {each.rpartition(".")[2] for each in files - tested} == LARGE


# Files of timm whose smallest networks have more than 60 million parameters.
LARGE = {
    *("beit", "deepseek_vit", "gemma4_vit", "mobilenetv5", "naflexvit", "nasnet", "pnasnet"),
    *("qwen3_vit", "vgg", "vision_transformer_sam"),
}
