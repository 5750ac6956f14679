"""torchvision's classification networks, under its own names, with its ImageNet weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from medtl.errors import MedtlError
from medtl.networks.pooled_head import pool_before_output
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import Architecture, LoadedWeights, register
from medtl.networks.weights_file import read_weights

RESNETS = ("resnet", "resnext", "wide_resnet")  # families whose output layer is `fc`
SELF_SCALING = ("googlenet", "inception_v3")  # scale images from ImageNet's normalisation to -1..1


@dataclass(frozen=True)
class TorchvisionWeights:
    """ImageNet weights of a torchvision network.

    `self_scaling` networks undo ImageNet's normalisation themselves (`transform_input`).
    """

    name: str
    self_scaling: bool

    def preprocessing(self) -> Preprocessing:
        """Returns the preprocessing of the default weights."""
        return self._expected(get_model_weights(self.name).DEFAULT)

    def load(self) -> LoadedWeights:
        """Loads the weights whose file is on this machine, else the default ones."""
        chosen = self._cached_or_default()
        return LoadedWeights(_state(chosen), chosen.url, self._expected(chosen))

    def _cached_or_default(self) -> WeightsEnum:
        published = get_model_weights(self.name)
        # VGG16's FEATURES have no classifier and are for style transfer.
        usable = [published.DEFAULT, *(w for w in published if not w.name.endswith("FEATURES"))]
        cached = [weights for weights in usable if _cache_file(weights).is_file()]
        return cached[0] if cached else published.DEFAULT

    def _expected(self, weights: WeightsEnum) -> Preprocessing:
        transforms = weights.transforms()
        mean, std = tuple(transforms.mean), tuple(transforms.std)
        if self.name in SELF_SCALING and not self.self_scaling:
            # the same as torchvision's normalisation and the network's scaling, in one step
            mean = std = (0.5, 0.5, 0.5)
        return Preprocessing(mean, std, transforms.crop_size[0])


def _cache_file(weights: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(weights.url).path).name)


def _state(weights: WeightsEnum) -> dict[str, Tensor]:
    file = _cache_file(weights)
    if file.is_file():
        return read_weights(file)
    try:
        return weights.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise MedtlError(
            f"cannot download ImageNet weights ({error}): put the file {file.name} "
            f"from {weights.url} into {file.parent}, or give weights=random"
        ) from error


def _make(name: str, classes: int, side: int, modalities: int) -> nn.Module:
    network = torchvision.models.get_model(name, num_classes=classes, **_options(name, side))
    if name.startswith("squeezenet"):
        pool_before_output(network)
    return network


def _make_part(name: str, classes: int, side: int, modalities: int) -> nn.Module:
    """Builds the network with ImageNet's classes, for images in ImageNet's normalisation."""
    options = _options(name, side)
    if name in SELF_SCALING:
        options["transform_input"] = True
    return torchvision.models.get_model(name, **options)


def _options(name: str, side: int) -> dict[str, object]:
    """Returns the arguments of a network's constructor beside the number of classes."""
    if name in SELF_SCALING:
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": side}
    if name.startswith("maxvit_"):
        return {"input_size": (side, side)}
    return {}


# DenseNet's published files name the layers inside a dense layer `norm.1` instead of `norm1`.
_OLD_DENSE_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def _adapted(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns a state dict under torchvision's present names, for the network's image size."""
    state = OrderedDict((_OLD_DENSE_NAME.sub(r"\1\2", name), each) for name, each in state.items())
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in state:
        return interpolate_embeddings(network.image_size, network.patch_size, state)
    return state


def _architecture(name: str, make: Callable[..., nn.Module], self_scaling: bool) -> Architecture:
    return Architecture(
        name,
        partial(make, name),
        makes_maps=not name.startswith("vit_"),
        output_layer="fc" if name.startswith(RESNETS) else "",
        published=TorchvisionWeights(name, self_scaling),
        adapt=_adapted,
    )


for _name in torchvision.models.list_models(module=torchvision.models):
    _part = _architecture(_name, _make_part, self_scaling=True)
    register(replace(_architecture(_name, _make, self_scaling=False), as_part=_part))
