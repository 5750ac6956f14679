"""Weights from torchvision's cache and from files; here the files are written by the tests."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.pretrained import load_weights, preprocessing
from medtl.networks.registry import build

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def state_of(architecture: str, classes: int = 1000, image_size: int = 32) -> dict[str, Tensor]:
    return build(architecture, classes, image_size, seed=9).state_dict()


def checkpoints() -> Path:
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def assert_loaded(network: nn.Module, state: dict[str, Tensor], head: str) -> None:
    for name, value in network.state_dict().items():
        if not name.startswith(head):
            torch.testing.assert_close(value, state[name], rtol=0, atol=0, msg=name)


def test_imagenet_from_the_cache_keeps_the_new_head() -> None:
    state = state_of("squeezenet1_1")
    torch.save(state, checkpoints() / "squeezenet1_1-b8a52dc0.pth")
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    head = network.classifier[1].weight.clone()
    expected = load_weights(network, "squeezenet1_1", "imagenet").preprocessing
    assert (expected.mean, expected.std, expected.image_size) == (*IMAGENET, 224)
    assert_loaded(network, state, "classifier.1.")
    assert torch.equal(network.classifier[1].weight, head)


def test_published_weights_are_loaded_beside_a_new_dense_layer() -> None:
    state = state_of("mobilenet_v2")
    torch.save(state, checkpoints() / "mobilenet_v2-7ebf99e0.pth")
    network = build("mobilenet_v2", classes=1000, image_size=32, seed=0, hidden=16)
    drawn = {name: value.clone() for name, value in network.classifier[1].state_dict().items()}
    load_weights(network, "mobilenet_v2", "imagenet")
    assert_loaded(network, state, "classifier.1.")
    assert all(
        torch.equal(value, drawn[name])
        for name, value in network.classifier[1].state_dict().items()
    )


@pytest.mark.parametrize(("hidden", "other"), [(16, 0), (0, 16), (16, 16)])
def test_a_file_fits_a_network_with_and_without_a_dense_layer(
    tmp_path: Path, hidden: int, other: int
) -> None:
    saved = build("squeezenet1_1", 3, 32, seed=1, hidden=hidden)
    save_file(saved.state_dict(), tmp_path / "saved.safetensors")
    network = build("squeezenet1_1", 3, 32, seed=2, hidden=other)
    load_weights(network, "squeezenet1_1", str(tmp_path / "saved.safetensors"))
    assert_loaded(network, saved.state_dict(), "classifier.1." if hidden != other else "none")


def test_published_weights_in_the_cache_come_before_the_default_ones() -> None:
    state = state_of("mobilenet_v2")
    torch.save(state, checkpoints() / "mobilenet_v2-b0353104.pth")  # the first; there are second
    network = build("mobilenet_v2", classes=3, image_size=32, seed=0)
    load_weights(network, "mobilenet_v2", "imagenet")
    assert_loaded(network, state, "classifier.1.")


def test_without_file_and_network_one_line_says_which_file_goes_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    with pytest.raises(MedtlError) as raised:
        load_weights(network, "squeezenet1_1", "imagenet")
    message = str(raised.value)
    assert "squeezenet1_1-b8a52dc0.pth" in message
    assert str(checkpoints()) in message
    assert "\n" not in message


def test_random_leaves_the_network_as_built() -> None:
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_weights(network, "squeezenet1_1", "random").preprocessing == preprocessing(
        "squeezenet1_1"
    )
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("architecture", ["mnasnet0_5", "resnet18"])
def test_a_file_with_the_same_classes_is_loaded_whole(
    architecture: str, suffix: str, tmp_path: Path
) -> None:
    state = state_of(architecture, classes=3)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    network = build(architecture, classes=3, image_size=32, seed=0)
    load_weights(network, architecture, str(file))
    assert_loaded(network, state, head="none of them")


def test_a_checkpoint_of_a_training_script(tmp_path: Path) -> None:
    state = state_of("squeezenet1_1")
    wrapped = {"module." + name: value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "checkpoint.pth")
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    load_weights(network, "squeezenet1_1", str(tmp_path / "checkpoint.pth"))
    assert_loaded(network, state, "classifier.1.")


def test_a_backbone_without_any_head(tmp_path: Path) -> None:
    state = {k: v for k, v in state_of("squeezenet1_1").items() if k.startswith("features")}
    save_file(state, tmp_path / "backbone.safetensors")
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    load_weights(network, "squeezenet1_1", str(tmp_path / "backbone.safetensors"))
    assert_loaded(network, state, "classifier.1.")


def test_old_names_inside_dense_layers(tmp_path: Path) -> None:
    state = state_of("densenet121")
    old = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.")
        if "denselayer" in name
        else name: value
        for name, value in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    network = build("densenet121", classes=3, image_size=32, seed=0)
    load_weights(network, "densenet121", str(tmp_path / "densenet121-a639ec97.pth"))
    assert_loaded(network, state, "classifier.")


def test_position_embeddings_are_interpolated_to_the_image_size(tmp_path: Path) -> None:
    state = state_of("vit_b_32", image_size=64)
    torch.save(state, tmp_path / "vit.pth")
    network = build("vit_b_32", classes=3, image_size=96, seed=0)
    load_weights(network, "vit_b_32", str(tmp_path / "vit.pth"))
    position = network.encoder.pos_embedding
    assert position.shape[1] == 1 + 9
    torch.testing.assert_close(position[:, 0], state["encoder.pos_embedding"][:, 0])
    corners = position[0, [1, 3, 7, 9]]
    torch.testing.assert_close(corners, state["encoder.pos_embedding"][0, 1:])


def test_inception_sees_the_same_numbers_as_with_torchvisions_own_scaling() -> None:
    network = build("inception_v3", classes=3, image_size=75, seed=0)
    image = torch.rand(1, 3, 75, 75, generator=torch.Generator().manual_seed(0))
    ours = preprocessing("inception_v3")
    assert ours.image_size == 299

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    network.transform_input = True
    theirs = network._transform_input(normalised(*IMAGENET))
    torch.testing.assert_close(normalised(ours.mean, ours.std), theirs)


def test_auxiliary_heads_in_a_file_are_left_out(tmp_path: Path) -> None:
    state = state_of("googlenet")
    torch.save({**state, "aux1.fc1.weight": torch.zeros(2)}, tmp_path / "googlenet.pth")
    network = build("googlenet", classes=3, image_size=32, seed=0)
    load_weights(network, "googlenet", str(tmp_path / "googlenet.pth"))
    assert_loaded(network, state, "fc.")


@pytest.mark.parametrize("weights", ["imagnet", "missing.pth", "weights.h5"])
def test_what_weights_may_be(weights: str) -> None:
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    with pytest.raises(ParameterError, match=f"weights={weights} .*imagenet, random"):
        load_weights(network, "squeezenet1_1", weights)


def refusal(file: Path, architecture: str = "squeezenet1_1") -> str:
    network = build(architecture, classes=3, image_size=32, seed=0)
    with pytest.raises(MedtlError) as raised:
        load_weights(network, architecture, str(file))
    message = str(raised.value)
    assert str(file) in message
    assert "\n" not in message
    return message


def test_pickled_objects_and_broken_files_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    assert "run any code" in refusal(tmp_path / "whole.pth")
    torch.save({"fc.weight": torch.ones(2), "c": collections.Counter}, tmp_path / "class.pth")
    refusal(tmp_path / "class.pth")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    assert "not a state dict" in refusal(tmp_path / "tensor.pth")

    torch.save(state_of("squeezenet1_1"), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    refusal(tmp_path / "cut.pth")
    for name in ("text.pth", "text.safetensors", "empty.pth", "empty.safetensors"):
        (tmp_path / name).write_bytes(b"no weights" if "text" in name else b"")
        refusal(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["bare.pth", "bare.bin", "zip.ckpt", "old.pth.tar", "bare.safetensors"]
)
def test_a_payload_is_refused_and_not_run(name: str, tmp_path: Path, payload) -> None:
    if name.startswith("bare"):
        (tmp_path / name).write_bytes(pickle.dumps(payload))
    else:
        as_zip = name == "zip.ckpt"
        state = {"features.0.weight": payload}
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=as_zip)
    assert "could run any code" in refusal(tmp_path / name)
    assert not payload.folder.exists()


def test_a_payload_under_another_name_is_no_weights_file(tmp_path: Path, payload) -> None:
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(payload))
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    with pytest.raises(ParameterError, match=r"existing file \(\.safetensors, \.pth"):
        load_weights(network, "squeezenet1_1", str(tmp_path / "weights.pkl"))
    assert not payload.folder.exists()


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file(state_of("squeezenet1_0"), tmp_path / "other.safetensors")
    assert "features.0.weight" in refusal(tmp_path / "other.safetensors")
    save_file(
        state_of("squeezenet1_1") | {"features.0.weight": torch.ones(96, 3, 7, 7)},
        tmp_path / "shape.safetensors",
    )
    network = build("squeezenet1_1", classes=3, image_size=32, seed=0)
    note = load_weights(network, "squeezenet1_1", str(tmp_path / "shape.safetensors")).note
    assert "of another shape: features.0.weight (96x3x7x7, not 64x3x3x3)" in note
    save_file(state_of("mobilenet_v2"), tmp_path / "family.safetensors")
    assert "missing: features.0.weight, features.0.bias" in refusal(tmp_path / "family.safetensors")


def test_a_deeper_network_of_the_family_is_refused(tmp_path: Path) -> None:
    # it has all tensors of the smaller one, by name and shape
    state = state_of("resnet34", classes=3)
    save_file(state, tmp_path / "deeper.safetensors")
    message = refusal(tmp_path / "deeper.safetensors", "resnet18")
    assert "unknown to the network: layer1.2." in message
    assert "and 77 more" in message
