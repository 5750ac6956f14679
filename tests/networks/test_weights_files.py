"""Files of weights as they are published: wrappers, prefixes, names of other libraries."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer, densenet121, inception_v3, resnet50

from medtl.errors import MedtlError, ParameterError
from medtl.networks.normalisation import check_normalise, normalised_as
from medtl.networks.preprocessing import Preprocessing, network_input
from medtl.networks.pretrained import LoadResult, check_weights, load_weights, preprocessing
from medtl.networks.registry import build, find
from medtl.networks.weights.matching import best_match, fill

State = dict[str, Tensor]
RESNET = "resnet18"


def drawn(state: State, seed: int = 3) -> State:
    """The tensors of a network, with values of their own."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(each.shape, generator=generator) if each.is_floating_point() else each
        for name, each in state.items()
    }


def zeros(state: State) -> State:
    """Tensors of another network of the same names."""
    return {name: torch.zeros_like(each) for name, each in state.items()}


@pytest.fixture(scope="module")
def resnet() -> State:
    return drawn(build(RESNET, classes=1000, image_size=32, seed=0).state_dict())


def saved(folder: Path, content: object, name: str = "weights.pth") -> str:
    torch.save(content, folder / name)
    return str(folder / name)


def loaded(weights: str, architecture: str = RESNET, side: int = 32) -> tuple[State, LoadResult]:
    network = build(architecture, classes=3, image_size=side, seed=0)
    result = load_weights(network, architecture, weights)
    return network.state_dict(), result


def assert_equal(found: State, state: State, head: str = "fc.") -> None:
    names = [name for name in found if not name.startswith(head)]
    assert names
    for name in names:
        torch.testing.assert_close(found[name], state[name], rtol=0, atol=0, msg=name)


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], object]] = {
    "DataParallel": lambda state: prefixed(state, "module."),
    "MAE": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": prefixed(state, "model.encoder.") | {"loss.weight": torch.ones(2)},
        "hyper_parameters": argparse.Namespace(lr=0.1),
    },
    "DINO": lambda state: {
        "student": prefixed(zeros(state), "module.backbone."),
        "teacher": prefixed(state, "backbone."),
        "args": argparse.Namespace(arch="resnet18"),
    },
    "MoCo": lambda state: {"state_dict": prefixed(state, "module.base_encoder.")},
    "averaged": lambda state: {"model": zeros(state), "model_ema": state, "best": np.float64(1)},
    "nested": lambda state: {"module": {"net": prefixed(state, "base_model.backbone.module.")}},
    "features": lambda state: prefixed(state, "features."),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_and_prefixes_are_found(name: str, resnet: State, tmp_path: Path) -> None:
    found, result = loaded(saved(tmp_path, WRAPPERS[name](resnet)))
    assert_equal(found, resnet)
    assert "weights.pth: 100 of 100 tensors of resnet18" in result.note
    if name == "DINO":
        assert "from teacher.backbone.*" in result.note
        assert "not of the backbone: student." in result.note


@pytest.mark.parametrize(
    "suffix", [".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".PTH"]
)
def test_every_form_of_file(suffix: str, resnet: State, tmp_path: Path) -> None:
    place = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(resnet, place)
    else:
        torch.save({"state_dict": resnet}, place)
    assert_equal(loaded(str(place))[0], resnet)


def test_a_file_without_the_first_part_of_the_names(tmp_path: Path) -> None:
    state = drawn(build("squeezenet1_1", 7, 32, seed=0).state_dict())
    features = {
        f"encoder.{name.removeprefix('features.')}": tensor
        for name, tensor in state.items()
        if name.startswith("features.")
    }
    found, _ = loaded(saved(tmp_path, features), "squeezenet1_1")
    assert_equal(found, state, head="classifier.1.")


def test_a_few_tensors_may_be_missing_and_are_named(resnet: State, tmp_path: Path) -> None:
    some = {name: each for name, each in resnet.items() if not name.startswith("layer4.1.bn")}
    found, result = loaded(saved(tmp_path, some))
    assert_equal({name: found[name] for name in some}, some)
    assert "92 of 100" in result.note
    assert "missing: layer4.1.bn1.weight, " in result.note
    assert "and 5 more" in result.note
    fewer = {name: each for name, each in resnet.items() if not name.startswith("layer4.1")}
    fewer = {name: each for name, each in fewer.items() if "bn1.running" not in name}
    with pytest.raises(MedtlError, match=r"fills 7\d of the 100 .* 90% are needed; missing:"):
        loaded(saved(tmp_path, fewer))


def numbered(network: nn.Module, children: int) -> State:
    """The names of RadImageNet's files: `nn.Sequential` of the first children, as `backbone`."""
    layers = nn.Sequential(*list(network.children())[:children])
    return prefixed(layers.state_dict(), "backbone.")


@pytest.mark.parametrize(
    ("architecture", "make", "some"),
    [
        ("resnet50", resnet50, {"0.weight": "conv1.weight", "7.2.bn3.bias": "layer4.2.bn3.bias"}),
        ("densenet121", densenet121, {"0.conv0.weight": "features.conv0.weight"}),
        (
            "inception_v3",
            lambda: inception_v3(aux_logits=False, init_weights=False),
            {"0.conv.weight": "Conv2d_1a_3x3.conv.weight"},
        ),
        (
            "inception_v3",
            lambda: inception_v3(aux_logits=True, init_weights=False),
            {"16.branch3x3_1.conv.weight": "Mixed_7a.branch3x3_1.conv.weight"},
        ),
    ],
)
def test_numbered_layers_of_radimagenet(
    architecture: str, make: Callable[[], nn.Module], some: dict[str, str]
) -> None:
    with torch.device("meta"):
        network = find(architecture).make(3, 299, 1)
        state = numbered(make(), -1)
    head = "fc." if architecture != "densenet121" else "classifier."
    match = best_match(network, state, (head,), find(architecture).adapt)
    assert match.filled == match.expected > 250
    assert match.prefix == "backbone."
    for theirs, ours in some.items():
        assert match.tensors[ours] is state[f"backbone.{theirs}"]


def test_torchxrayvision(tmp_path: Path) -> None:
    state = drawn(build("densenet121", 18, 32, seed=0).state_dict())
    colour = state["features.conv0.weight"]
    state["features.conv0.weight"] = colour.sum(dim=1, keepdim=True)
    found, result = loaded(
        saved(tmp_path, state | {"op_threshs": torch.rand(18)}, "xrv.pt"), "densenet121"
    )
    assert_equal(
        {name: each for name, each in found.items() if name != "features.conv0.weight"},
        state,
        "classifier.",
    )
    grey = torch.rand(2, 1, 16, 16)
    image = network_input(grey, result.preprocessing)
    torch.testing.assert_close(image, ((2 * grey - 1) * 1024).expand(2, 3, 16, 16))
    theirs = nn.functional.conv2d(image[:, :1], state["features.conv0.weight"])
    ours = nn.functional.conv2d(image, found["features.conv0.weight"])
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0)
    assert "-1024 to 1024" in result.note
    assert "resized: features.conv0.weight" in result.note
    # without the operating points only normalise=xrv can say it
    _, plain = loaded(saved(tmp_path, state, "plain.pt"), "densenet121")
    assert plain.preprocessing.mean == pytest.approx((0.449,) * 3)
    network = build("densenet121", classes=3, image_size=32, seed=0)
    told = load_weights(network, "densenet121", str(tmp_path / "plain.pt"), "xrv")
    assert told.preprocessing == result.preprocessing


class GreyNet(nn.Module):
    """A network that reads one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)


def test_a_convolution_of_three_channels_for_one() -> None:
    network, weight = GreyNet(), torch.rand(4, 3, 3, 3)
    fill(network, best_match(network, {"conv.weight": weight}, (), None))
    grey = torch.rand(1, 1, 8, 8)
    theirs = nn.functional.conv2d(grey.expand(1, 3, 8, 8), weight)
    torch.testing.assert_close(network.conv(grey), theirs)


def transformers_names(state: State, dinov2: bool) -> State:
    """The names of transformers' ViT or DINOv2 for tensors with those of timm."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    within = {
        "norm1": "norm1" if dinov2 else "layernorm_before",
        "norm2": "norm2" if dinov2 else "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1" if dinov2 else "intermediate.dense",
        "mlp.fc2": "mlp.fc2" if dinov2 else "output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    renamed = {"embeddings.mask_token": torch.zeros(1, 1, 8)} if dinov2 else {}
    for name, tensor in state.items():
        if name.startswith("head"):
            continue
        if not name.startswith("blocks."):
            path = name if name in names else name.rpartition(".")[0]
            renamed[name.replace(path, names[path])] = tensor
            continue
        _, block, rest = name.split(".", 2)
        path, _, kind = rest.rpartition(".")
        if path == "attn.qkv":
            for part, each in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = each
        elif rest in within:
            renamed[f"encoder.layer.{block}.{within[rest]}"] = tensor
        else:
            renamed[f"encoder.layer.{block}.{within[path]}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize(
    ("name", "prefix"), [("vit_tiny_patch16_224", "vit."), ("vit_small_patch14_dinov2", "dinov2.")]
)
def test_names_of_transformers_for_timm(name: str, prefix: str) -> None:
    options = {"img_size": 56 if "14" in name else 64, "depth": 2, "embed_dim": 48, "num_heads": 3}
    network = timm.create_model(name, num_classes=3, **options)
    state = drawn(network.state_dict())
    renamed = prefixed(transformers_names(state, "dinov2" in name), prefix)
    renamed |= {"classifier.weight": torch.rand(1000, 48), "classifier.bias": torch.rand(1000)}
    match = best_match(network, renamed, ("head.",), find(f"timm:{name}").adapt)
    assert match.filled == match.expected
    assert match.prefix == prefix
    fill(network, match)
    assert_equal(network.state_dict(), state, "head.")


def test_names_of_transformers_with_registers_and_of_another_grid() -> None:
    name = "vit_small_patch14_reg4_dinov2"
    options = {"depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 3}
    network = timm.create_model(name, img_size=56, **options)
    state = drawn(network.state_dict())
    renamed = transformers_names({k: v for k, v in state.items() if k != "reg_token"}, dinov2=True)
    # the original has a position for the class token, which timm adds to the token
    renamed["embeddings.register_tokens"] = state["reg_token"]
    renamed["embeddings.position_embeddings"] = torch.rand(1, 1 + 6 * 6, 48)
    match = best_match(network, renamed, ("head.",), find(f"timm:{name}").adapt)
    assert (match.filled, match.missing) == (match.expected, ())
    assert "pos_embed" in match.resized
    assert torch.equal(match.tensors["reg_token"], state["reg_token"])
    assert match.tensors["pos_embed"].shape == (1, 16, 48)


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_names_of_other_libraries_for_torchvisions_transformer(library: str) -> None:
    theirs = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=3, num_classes=5
    ).eval()
    network = VisionTransformer(96, 16, 2, 3, hidden_dim=48, mlp_dim=192, num_classes=5).eval()
    state: State = theirs.state_dict()
    if library == "transformers":
        state = prefixed(transformers_names(state, dinov2=False), "vit.")
    adapt = find("vit_b_16").adapt
    match = best_match(network, prefixed(state, "module."), ("heads.head.",), adapt)
    assert match.filled == match.expected
    assert "encoder.pos_embedding" in match.resized
    smaller = VisionTransformer(64, 16, 2, 3, hidden_dim=48, mlp_dim=192, num_classes=5).eval()
    fill(smaller, best_match(smaller, state, ("heads.head.",), adapt))
    images = torch.rand(2, 3, 64, 64)
    ours = smaller._process_input(images)
    ours = smaller.encoder(torch.cat([smaller.class_token.expand(2, -1, -1), ours], dim=1))
    torch.testing.assert_close(ours, theirs.forward_features(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("unit", (0, 0, 0), (1, 1, 1)),
        ("0.5/0.25", (0.5,) * 3, (0.25,) * 3),
        ("0.5,0.4,0.3/0.2", (0.5, 0.4, 0.3), (0.2,) * 3),
        ("xrv", (0.5,) * 3, (1 / 2048,) * 3),
        ("auto", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    ],
)
def test_normalise(text: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    given = Preprocessing((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 64)
    check_normalise(text)
    assert normalised_as(given, text) == dataclasses.replace(given, mean=mean, std=std)


@pytest.mark.parametrize(
    "text", ["", "0.5", "0.5/0", "0.5/-1", "0.5,0.5/1", "nan/1", "1/inf", "a/b"]
)
def test_what_normalise_may_be(text: str) -> None:
    with pytest.raises(ParameterError, match=r"normalise=.*imagenet, unit, xrv, or MEAN/STD"):
        check_normalise(text)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub, empty, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(hub: Path, repository: str, config: dict[str, object], state: State | None) -> None:
    """Stores a model as the client of the hub does."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40, "utf-8")
    (snapshot / "config.json").write_text(json.dumps(config), "utf-8")
    if state is not None:
        save_file(state, snapshot / "model.safetensors")


CONFIG = {
    "architecture": "test_vit",
    "num_classes": 0,
    "model_args": {"img_size": 96, "init_values": 1e-5, "num_classes": 0, "global_pool": "token"},
    "pretrained_cfg": {"mean": [0.7, 0.6, 0.5], "std": [0.2, 0.3, 0.4], "input_size": [3, 96, 96]},
}


def test_a_model_of_timm_on_the_hub(hub: Path) -> None:
    theirs = timm.create_model("test_vit", num_classes=0, img_size=96, init_values=1e-5)
    state = drawn(theirs.state_dict())
    cached(hub, "lab/encoder", CONFIG, state)
    name = "timm:test_vit?init_values=1e-05&global_pool=token"
    check_weights(name, "hf:lab/encoder")
    found, result = loaded("hf:lab/encoder", name, 96)
    assert_equal(found, state, "head.")
    assert (result.preprocessing.mean, result.preprocessing.image_size) == ((0.7, 0.6, 0.5), 96)
    assert "hf:lab/encoder: " in result.note
    with pytest.raises(ParameterError, match="it is of timm:test_vit"):
        check_weights("resnet18", "hf:lab/encoder")
    assert preprocessing(name).mean == preprocessing("timm:test_vit").mean
    with pytest.raises(ParameterError, match="has none"):
        check_weights(name, "imagenet")  # another network than the published one


def test_the_hub_without_file_and_network(hub: Path) -> None:
    with pytest.raises(MedtlError) as raised:
        check_weights("timm:test_vit", "hf:lab/missing")
    for part in ("config.json", "the repository lab/missing", str(hub), "HF_HOME"):
        assert part in str(raised.value)
    cached(hub, "lab/half", {**CONFIG, "model_args": {}}, None)
    with pytest.raises(MedtlError) as raised:
        loaded("hf:lab/half", "timm:test_vit", 96)
    for part in ("model.safetensors", "the repository lab/half", str(hub)):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_model_of_timm_on_the_hub(hub: Path) -> None:
    cached(hub, "lab/bert", {"architectures": ["BertModel"]}, None)
    with pytest.raises(ParameterError, match="a model of timm on the hub; of another library"):
        check_weights("timm:test_vit", "hf:lab/bert")
    with pytest.raises(ParameterError, match="hf:ORG/NAME"):
        check_weights("timm:test_vit", "hf:encoder")


def test_arguments_that_timm_does_not_take_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"architecture=.*timm says: .*no_such_option"):
        build("timm:test_vit?no_such_option=1", classes=2, image_size=96, seed=0)
