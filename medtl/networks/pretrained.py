"""Backbones: networks with pretrained weights, published or from a file."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.architectures.timm_models import HUB, hub_model
from medtl.networks.cutoffs import resolve
from medtl.networks.normalisation import AUTO, grey, normalised_as
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import (
    IMAGE_NETWORK,
    Architecture,
    find,
    image_network,
    part,
    published_within,
)
from medtl.networks.weights.matching import LEAST_SHARE, Match, best_match, fill, listed
from medtl.networks.weights.torchxrayvision import is_of_torchxrayvision
from medtl.networks.weights_file import SUFFIXES, is_weights_file, read_weights


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
        MedtlError: the hub's description of a model is not to be had.
    """
    if weights == "imagenet" and not published_within(find(architecture)):
        raise ParameterError(
            "weights",
            "imagenet",
            f"{architecture} has none: give random, a file, or a backbone of pretrain",
        )
    if weights.startswith(HUB):
        if (theirs := hub_model(weights).architecture) != architecture:
            raise ParameterError("weights", weights, f"of {architecture}; it is of {theirs}")
    elif weights not in ("random", "imagenet"):
        _weights_file(weights)


@dataclass(frozen=True)
class LoadResult:
    """Outcome of loading weights into a network.

    Attributes:
        preprocessing: what the weights expect of images.
        note: how many tensors of a file were loaded and which were not; empty for published and
            for random weights.
    """

    preprocessing: Preprocessing
    note: str = ""


def load_weights(
    network: nn.Module, architecture: str, weights: str, normalise: str = AUTO
) -> LoadResult:
    """Loads weights into a network that `build` made.

    `weights` is `imagenet`, `random` (the network stays as it was built), `hf:ORG/NAME` (a model of
    timm on the hub), or a file (`SUFFIXES`). The head is loaded if it has the network's number of
    classes, else it stays as it was built (of a head of several layers, each that fits is loaded).
    Position embeddings of a vision transformer are interpolated to the network's image size.
    Published weights of networks within a larger one are loaded into these; the other layers stay
    as they were built. So do those around the network that reads each image of a case, where a
    file is of that network.

    A file has the preprocessing of the architecture's published weights: its mean over the channels
    where the file's first convolution takes one, and torchxrayvision's where the file says so.
    `normalise` overrides it.

    Raises:
        ParameterError: `weights` or `normalise` is none of these.
        MedtlError: the file is not to be had, cannot be read, or does not fit the network.
    """
    check_weights(architecture, weights)
    result = _loaded(network, architecture, weights)
    return replace(result, preprocessing=normalised_as(result.preprocessing, normalise))


def _loaded(network: nn.Module, architecture: str, weights: str) -> LoadResult:
    if weights == "random":
        return LoadResult(preprocessing(architecture))
    if weights == "imagenet":
        return LoadResult(_load_published(network, architecture))
    if weights.startswith(HUB):
        loaded = hub_model(weights).load()
        match = load_state(network, architecture, loaded.state, loaded.source)
        return LoadResult(loaded.preprocessing, _note(match, architecture, weights))
    path = _weights_file(weights)
    tensors = read_weights(path)
    match = load_state(network, architecture, tensors, str(path))
    expected, note = preprocessing(architecture), _note(match, architecture, path.name)
    if is_of_torchxrayvision(tensors):
        return LoadResult(
            normalised_as(expected, "xrv"), f"{note}; images as torchxrayvision's: -1024 to 1024"
        )
    return LoadResult(grey(expected) if match.one_channel else expected, note)


def _weights_file(weights: str) -> Path:
    path = Path(weights).expanduser()
    if not is_weights_file(path):
        raise ParameterError(
            "weights",
            weights,
            f"give imagenet, random, {HUB}ORG/NAME, or an existing file ({', '.join(SUFFIXES)})",
        )
    return path


def _note(match: Match, architecture: str, source: str) -> str:
    """Returns how many tensors of a file were loaded, and which were not."""
    under = f" from {match.prefix}*" if match.prefix else ""
    parts = [f"{source}: {match.filled} of {match.expected} tensors of {architecture}{under}"]
    if match.resized:
        parts.append(f"resized: {listed(match.resized)}")
    parts += match.reasons
    if match.others:
        parts.append(f"not of the backbone: {listed(match.others)}")
    return "; ".join(parts)


def _load_published(network: nn.Module, architecture: str) -> Preprocessing:
    expected = preprocessing(architecture)
    for path, within in published_within(find(architecture)).items():
        if within.published is None:
            continue
        loaded = within.published.load()
        if path == "":
            load_state(network, architecture, loaded.state, loaded.source)
            return loaded.preprocessing
        part_of = network.get_submodule(path)
        match = best_match(part_of, loaded.state, (), within.adapt)
        _check_share(match, architecture, loaded.source)
        fill(part_of, match)
    return expected


def load_state(
    network: nn.Module, architecture: str, state: Mapping[str, Tensor], source: str
) -> Match:
    """Loads a state dict that has nearly all tensors of the backbone; the head may be another.

    For an architecture of cases it may also be that of the network that reads each image.

    Raises:
        MedtlError: less than 90 % of the backbone's tensors fit; names `source` and some of them.
    """
    head = tuple(f"{name}." for name in _output_layers(network, architecture))
    match, filled = best_match(network, state, head, find(architecture).adapt), network
    reader = image_network(architecture)
    if reader and match.share < LEAST_SHARE:
        inner = network.get_submodule(IMAGE_NETWORK)
        of_images = best_match(inner, state, (), part(reader).adapt)
        if of_images.share > match.share:
            match, filled = of_images, inner
    _check_share(match, architecture, source)
    fill(filled, match)
    return match


def _check_share(match: Match, architecture: str, source: str) -> None:
    if match.share < LEAST_SHARE:
        raise MedtlError(
            f"{source} does not fit {architecture}: it fills {match.filled} of the "
            f"{match.expected} tensors of its backbone, {LEAST_SHARE:.0%} are needed; "
            + "; ".join(match.reasons)
        )


def _output_layers(network: nn.Module, architecture: str) -> tuple[str, ...]:
    """Returns the names of the layers whose shape depends on the number of classes."""
    head = resolve(network, architecture, "head").name
    return tuple(dict.fromkeys((head, *getattr(network, "output_layers", ()))))


@dataclass(frozen=True)
class Backbone:
    """Network before any training here; only copies of it are trained."""

    architecture: str
    weights: str  # the value of the parameter `weights`
    network: nn.Module
    preprocessing: Preprocessing
    note: str = ""  # how many tensors of a file were loaded and which were not

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
