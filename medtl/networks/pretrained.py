"""Backbones: networks with pretrained weights, published or from a file."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.cutoffs import resolve
from medtl.networks.graph import has_parameters
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import (
    IMAGE_NETWORK,
    Architecture,
    find,
    image_network,
    part,
    published_within,
)
from medtl.networks.weights_file import read_weights

_AUXILIARY_HEADS = ("AuxLogits.", "aux1.", "aux2.")


def preprocessing(architecture: str) -> Preprocessing:
    """Returns what the published weights of an architecture expect (its default ones, if several).

    Published weights of networks within a larger one count for the whole, with the smallest of
    their image sizes. Where no weights are published, images are taken to be grey.

    Raises:
        ParameterError: the weights of two networks within expect images normalised differently.
    """
    return _expected(find(architecture))


def _expected(architecture: Architecture) -> Preprocessing:
    if architecture.published is not None:
        return architecture.published.preprocessing()
    if architecture.preprocessing is not None:
        return architecture.preprocessing
    within = list(published_within(architecture).values())
    expected = [_expected(each) for each in within or map(part, architecture.parts.values())]
    if len({(each.mean, each.std) for each in expected}) > 1:
        raise ParameterError(
            "architecture", architecture.name, "two whose weights expect images normalised alike"
        )
    return min(expected, key=lambda each: each.image_size)


def check_weights(architecture: str, weights: str) -> None:
    """Refuses weights that `load_weights` cannot load into this architecture.

    Raises:
        ParameterError: unknown weights, or none for this architecture.
    """
    if weights == "imagenet" and not published_within(find(architecture)):
        raise ParameterError(
            "weights",
            "imagenet",
            f"{architecture} has none: give random, a file, or a backbone of pretrain",
        )
    if weights not in ("random", "imagenet"):
        _weights_file(weights)


def load_weights(network: nn.Module, architecture: str, weights: str) -> Preprocessing:
    """Loads weights into a network that `build` made; returns what they expect of images.

    `weights` is `imagenet`, `random` (the network stays as it was built), or a file:
    `.safetensors`, or `.pth` / `.pt` that holds tensors only. The head is loaded if it has the
    network's number of classes, else it stays as it was built (of a head of several layers, each
    that fits is loaded). Position embeddings of a vision transformer are interpolated to the
    network's image size. A file has the preprocessing of the architecture's published weights.
    Published weights of networks within a larger one are loaded into these; the other layers stay
    as they were built. So do those around the network that reads each image of a case, where a
    file is of that network.

    Raises:
        ParameterError: `weights` is none of these.
        MedtlError: the file is not to be had, cannot be read, or does not fit the network.
    """
    check_weights(architecture, weights)
    if weights == "random":
        return preprocessing(architecture)
    if weights == "imagenet":
        return _load_published(network, architecture)
    path = _weights_file(weights)
    load_state(network, architecture, read_weights(path), str(path))
    return preprocessing(architecture)


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if path.suffix not in (".safetensors", ".pth", ".pt") or not path.is_file():
        raise ParameterError(
            "weights", weights, "give imagenet, random, or an existing .safetensors or .pth file"
        )
    return path


def _load_published(network: nn.Module, architecture: str) -> Preprocessing:
    expected = preprocessing(architecture)
    for path, within in published_within(find(architecture)).items():
        if within.published is None:
            continue
        loaded = within.published.load()
        if path == "":
            load_state(network, architecture, loaded.state, loaded.source)
            return loaded.preprocessing
        state = _adapted(network.get_submodule(path), within, loaded.state, loaded.source)
        load_state(network, architecture, _placed(state, network, path), loaded.source)
    return expected


def _placed(state: Mapping[str, Tensor], network: nn.Module, path: str) -> dict[str, Tensor]:
    """Returns the network's state with another one at `path`, where the network has no head."""
    within = network.get_submodule(path)
    layers = [name for name, child in within.named_children() if has_parameters(child)]
    own = {k: v for k, v in network.state_dict().items() if not k.startswith(f"{path}.")}
    return own | {f"{path}.{k}": v for k, v in state.items() if k.partition(".")[0] in layers}


def load_state(
    network: nn.Module, architecture: str, state: Mapping[str, Tensor], source: str
) -> None:
    """Loads a state dict in which only the head may have another shape or be missing.

    For an architecture of cases it may also be that of the network that reads each image.

    Raises:
        MedtlError: it does not fit; names `source` and the first tensors that do not.
    """
    own = network.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    head = tuple(f"{name}." for name in _output_layers(network, architecture))
    present = _adapted(network, find(architecture), state, source)
    inner = f"{IMAGE_NETWORK}."
    if image_network(architecture) and not any(name.startswith(inner) for name in present):
        present = _placed(present, network, IMAGE_NETWORK)
    fitting = OrderedDict(
        (name, value)
        for name, value in present.items()
        if not name.startswith(_AUXILIARY_HEADS)
        and not (name.startswith(head) and value.shape != shapes.get(name))
    )
    # load_state_dict updates old formats of layers by the versions in here
    versions = getattr(state, "_metadata", None) or getattr(own, "_metadata", None)
    setattr(fitting, "_metadata", versions)  # noqa: B010, an attribute that torch adds
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


def _output_layers(network: nn.Module, architecture: str) -> tuple[str, ...]:
    """Returns the names of the layers whose shape depends on the number of classes."""
    head = resolve(network, architecture, "head").name
    return tuple(dict.fromkeys((head, *getattr(network, "output_layers", ()))))


def _adapted(
    network: nn.Module, architecture: Architecture, state: Mapping[str, Tensor], source: str
) -> Mapping[str, Tensor]:
    """Returns a state dict under the network's names and for its image size."""
    state = OrderedDict((name.removeprefix("module."), value) for name, value in state.items())
    if architecture.adapt is None:
        return state
    try:
        return architecture.adapt(network, state)
    except (ValueError, RuntimeError, KeyError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MedtlError(f"{source} does not fit the network: {reason}") from error


@dataclass(frozen=True)
class Backbone:
    """Network before any training here; only copies of it are trained."""

    architecture: str
    weights: str  # the value of the parameter `weights`
    network: nn.Module
    preprocessing: Preprocessing

    def copy(self) -> nn.Module:
        """Returns a copy of the network, to be cut and trained."""
        return copy.deepcopy(self.network)

    def digest(self) -> str:
        """Returns 16 hex digits of all weights but the head's, on which activations depend."""
        head = tuple(f"{name}." for name in _output_layers(self.network, self.architecture))
        digest = hashlib.sha256(self.architecture.encode())
        for name, value in self.network.state_dict().items():
            if not name.startswith(head):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]
