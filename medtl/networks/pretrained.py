"""Backbones: pretrained weights from torchvision or a file."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from medtl.errors import MedtlError, ParameterError
from medtl.networks.architectures.dual_backbone import halves_of
from medtl.networks.cutoffs import resolve
from medtl.networks.graph import has_parameters
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import image_network, torchvision_within

# The usual image sizes, in pixels, of architectures that have nothing of torchvision's.
_OWN_SIZES = {"small_resnet": 96, "parallel_cnn": 224}
_AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.")
# DenseNet's published files name the layers inside a dense layer `norm.1` instead of `norm1`.
_OLD_DENSE_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def preprocessing(architecture: str) -> Preprocessing:
    """That of the published weights of an architecture (of its default ones, if several).

    Those of torchvision's networks within a larger one count for the whole, with the smallest of
    their sizes. Where there are none, images are taken to be grey.

    Raises:
        ParameterError: the weights of two networks within expect images normalised differently.
    """
    within = torchvision_within(architecture)
    if "" in within:
        return _published(architecture, get_model_weights(architecture).DEFAULT)
    if not within:
        names = list(halves_of(architecture).values())
        names = names or [image_network(architecture) or architecture]
        size = min(_OWN_SIZES[name] for name in names)
        return Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), size)
    expected = [_transformed(get_model_weights(name).DEFAULT) for name in within.values()]
    if len({(each.mean, each.std) for each in expected}) > 1:
        raise ParameterError(
            "architecture", architecture, "two whose weights expect images normalised alike"
        )
    return min(expected, key=lambda each: each.image_size)


def check_weights(architecture: str, weights: str) -> None:
    """Refuses weights that `load_weights` cannot load into this architecture.

    Raises:
        ParameterError: unknown weights, or none for this architecture.
    """
    if weights == "imagenet" and not torchvision_within(architecture):
        raise ParameterError(
            "weights", "imagenet", f"{architecture} has none: give random or a file"
        )
    if weights not in ("random", "imagenet"):
        _weights_file(weights)


def load_weights(network: nn.Module, architecture: str, weights: str) -> Preprocessing:
    """Loads weights into a network that `build` made, and tells what images they expect.

    `weights` is `imagenet`, `random` (the network stays as it was built), or a file:
    `.safetensors`, or `.pth` / `.pt` holding tensors only. The head is loaded when it has the
    network's number of classes, and else left as it was built (of a head of several layers, each
    that fits is loaded). A vision transformer's position
    embedding is interpolated to the network's image size. For a file, the images are expected as
    by the architecture's published weights. ImageNet weights are loaded into those layers of the
    project's own architectures that are torchvision's; the others stay as they were built. So do
    those around the network that reads each image of a case, where a file is of that network.

    Raises:
        ParameterError: `weights` is none of these.
        MedtlError: the file cannot be had or read, or does not fit the network.
    """
    check_weights(architecture, weights)
    if weights == "random":
        return preprocessing(architecture)
    if weights == "imagenet":
        return _load_imagenet(network, architecture)
    path = _weights_file(weights)
    load_state(network, architecture, _read(path), str(path))
    return preprocessing(architecture)


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.suffix not in (".safetensors", ".pth", ".pt") or not path.is_file():
        raise ParameterError(
            "weights", weights, "give imagenet, random, or an existing .safetensors or .pth file"
        )
    return path


def _load_imagenet(network: nn.Module, architecture: str) -> Preprocessing:
    for path, name in torchvision_within(architecture).items():
        chosen = _cached_or_default(name)
        state = _imagenet(chosen)
        if path == "":
            load_state(network, architecture, state, chosen.url)
            return _published(architecture, chosen)
        load_state(network, architecture, _placed(state, network, path), chosen.url)
    return preprocessing(architecture)


def _published(architecture: str, weights: WeightsEnum) -> Preprocessing:
    expected = _transformed(weights)
    if architecture in ("googlenet", "inception_v3"):
        # Their weights expect values from -1 to 1. torchvision normalises like ImageNet's and
        # lets the network undo that (`transform_input`); this is the same in one step.
        return Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), expected.image_size)
    return expected


def _transformed(weights: WeightsEnum) -> Preprocessing:
    """As torchvision's own transforms for these weights have it."""
    transforms = weights.transforms()
    return Preprocessing(tuple(transforms.mean), tuple(transforms.std), transforms.crop_size[0])


def _cached_or_default(architecture: str) -> WeightsEnum:
    """Returns the published weights whose file is here already, else the default ones."""
    published = get_model_weights(architecture)
    # VGG16's FEATURES have no classifier and are for style transfer.
    usable = [published.DEFAULT, *(w for w in published if not w.name.endswith("FEATURES"))]
    cached = [weights for weights in usable if _cache_file(weights).is_file()]
    return cached[0] if cached else published.DEFAULT


def _cache_file(weights: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def _imagenet(weights: WeightsEnum) -> dict[str, Tensor]:
    file = _cache_file(weights)
    if file.is_file():
        return _read(file)
    try:
        return weights.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise MedtlError(
            f"cannot download ImageNet weights ({error}): put the file {file.name} "
            f"from {weights.url} into {file.parent}, or give weights=random"
        ) from error


def _placed(state: dict[str, Tensor], network: nn.Module, path: str) -> dict[str, Tensor]:
    """The network's own state, with another's in place of that at `path`, which has no head."""
    part = network.get_submodule(path)
    layers = [name for name, child in part.named_children() if has_parameters(child)]
    own = {k: v for k, v in network.state_dict().items() if not k.startswith(f"{path}.")}
    return own | {f"{path}.{k}": v for k, v in state.items() if k.partition(".")[0] in layers}


def _read(path: Path) -> dict[str, Tensor]:
    """Returns the named tensors in a file, those of a training checkpoint included."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes the readers raise is not documented
        raise MedtlError(
            f"{path} cannot be loaded: it is damaged, or holds more than tensors (which could run "
            "any code); save only the network's state_dict() in it"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise MedtlError(f"{path} is not a state dict; save the network's state_dict()")
    return state


def load_state(
    network: nn.Module, architecture: str, state: dict[str, Tensor], source: str
) -> None:
    """Loads a state dict in which only the head may be of another shape, or missing.

    Into an architecture of cases goes also that of the network that reads each image.
    """
    own = network.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    head = resolve(network, architecture, "head").name + "."
    present = _present_names(network, state, source)
    if image_network(architecture) and not any(name.startswith("cnn.") for name in present):
        present = _placed(present, network, "cnn")
    fitting = OrderedDict(
        (name, value)
        for name, value in present.items()
        if not name.startswith(_AUXILIARY_HEADS)
        and not (name.startswith(head) and value.shape != shapes.get(name))
    )
    # Layers bring old files up to date by the versions that are noted here.
    fitting._metadata = getattr(state, "_metadata", own._metadata)
    try:
        missing, unexpected = network.load_state_dict(fitting, strict=False)
    except (RuntimeError, ValueError) as error:
        *_, first_reason = str(error).splitlines()[:2]
        raise MedtlError(f"{source} does not fit {architecture}: {first_reason.strip()}") from error
    missing = [
        name
        for name in missing
        if not name.startswith(head) and not name.endswith("num_batches_tracked")
    ]
    for what, names in (("is without", missing), ("has the unknown", unexpected)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise MedtlError(
                f"{source} does not fit {architecture}: it {what} {', '.join(names[:3])}{more}"
            )


def _present_names(network: nn.Module, state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state dict under torchvision's present names, and for the network's image size."""
    state = OrderedDict(
        (_OLD_DENSE_NAME.sub(r"\1\2", name.removeprefix("module.")), value)
        for name, value in state.items()
    )
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in state:
        try:
            return interpolate_embeddings(network.image_size, network.patch_size, state)
        except ValueError as error:
            raise MedtlError(f"{source} does not fit the network: {error}") from error
    return state


@dataclass(frozen=True)
class Backbone:
    """A network as it was before any training here; what is trained is always a copy."""

    architecture: str
    weights: str  # where they came from, in the user's words
    network: nn.Module
    preprocessing: Preprocessing

    def copy(self) -> nn.Module:
        """A network of its own, to be cut and trained."""
        return copy.deepcopy(self.network)

    def digest(self) -> str:
        """16 hex digits of all weights but the head's: what a prefix can depend on."""
        head = resolve(self.network, self.architecture, "head").name
        digest = hashlib.sha256(self.architecture.encode())
        for name, value in self.network.state_dict().items():
            if not name.startswith(f"{head}."):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
