"""Building torchvision's classification networks and the project's own by their names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import torch
import torchvision
from torch import nn

from medtl.errors import ParameterError
from medtl.networks.architectures.dual_backbone import PREFIX, Dual, halves_of
from medtl.networks.architectures.late_fusion import LateFusion
from medtl.networks.architectures.parallel_cnn import ParallelCNN
from medtl.networks.architectures.small_resnet import SmallResNet
from medtl.networks.architectures.transmed import HEADS, TransMed
from medtl.networks.dense_head import put_dense_layer
from medtl.networks.graph import evaluating
from medtl.networks.pooled_head import pool_before_output

# Architectures of this project, beside torchvision's: those of one image, whose layers are all its
# own, and those of cases with one or more, around a ResNet of torchvision's or `small_resnet`
# (`NAME:RESNET`).
OWN = {"small_resnet": SmallResNet, "parallel_cnn": ParallelCNN}
OF_CASES = ("late_fusion", *HEADS)
USUAL_RESNET = "resnet18"


def architecture_names() -> tuple[str, ...]:
    """The names of all architectures, sorted; `dual:ARCH+ARCH` and `NAME:RESNET` are made of them.

    A `dual` is of two of these that make maps: not of ViTs, nor of those of cases.
    """
    return tuple(sorted([*OWN, *OF_CASES, *_torchvision_names()]))


def check_architecture(name: str) -> None:
    """Raises `ParameterError`, with the nearest names, when there is no architecture `name`."""
    if halves := halves_of(name):
        if not all(half in _mapping_names() for half in halves.values()):
            near = "+".join(_nearest(half, _mapping_names())[0] for half in halves.values())
            allowed = f"two that make maps, the nearest is {PREFIX}{near}"
            raise ParameterError("architecture", name, allowed)
        return
    if name.startswith(PREFIX):
        allowed = f"give {PREFIX}ARCH+ARCH, two architectures that make maps"
        raise ParameterError("architecture", name, allowed)
    of_cases, colon, resnet = name.partition(":")
    if of_cases in OF_CASES and colon:
        if resnet not in _resnet_names():
            near = ", ".join(f"{of_cases}:{each}" for each in _nearest(resnet, _resnet_names()))
            raise ParameterError("architecture", name, f"the nearest names are {near}")
        return
    if name not in architecture_names():
        near = ", ".join(_nearest(name, [*architecture_names(), f"{PREFIX}ARCH+ARCH"]))
        raise ParameterError("architecture", name, f"the nearest names are {near}")


def torchvision_within(name: str) -> dict[str, str]:
    """Where an architecture has layers of torchvision's: path to name, `""` for the whole.

    ImageNet weights are published for these, but for their heads.
    """
    if name in OWN:
        return {}
    if halves := halves_of(name):
        return {path: half for path, half in halves.items() if half not in OWN}
    resnet = image_network(name)
    if not resnet:
        return {"": name}
    return {} if resnet in OWN else {"cnn": resnet}


def image_network(name: str) -> str:
    """The network within an architecture of cases that reads each image; empty for all others."""
    of_cases, _, resnet = name.partition(":")
    return (resnet or USUAL_RESNET) if of_cases in OF_CASES else ""


def build(
    name: str, classes: int, image_size: int, seed: int, modalities: int = 1, hidden: int = 0
) -> nn.Module:
    """A randomly initialised network from images [B, 3, S, S] to scores [B, `classes`].

    The same seed gives the same weights; torch's global generator is left as it was. Inception
    and GoogLeNet come without their auxiliary heads. Transformers whose shape depends on the
    image size (ViT, MaxViT) are built for `image_size`. `modalities` is the number M of images of
    a case: architectures of cases take [B, M x 3, S, S], all others have one. `hidden` units, if
    any, are a dense ReLU layer before the output layer; it does not change the other weights.

    Raises:
        ParameterError: there is no such architecture, or it cannot take images of this size or
            cases of so many.
    """
    check_architecture(name)
    if modalities != 1 and name.partition(":")[0] not in OF_CASES:
        raise ParameterError(
            "architecture",
            name,
            f"it takes one image, these cases have {modalities}: give {' or '.join(OF_CASES)}",
        )
    generator_state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        network = _built(name, classes, image_size, modalities)
        if hidden:
            put_dense_layer(network, hidden)
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, 3 * modalities, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise ParameterError("image_size", image_size, f"{name} says: {reason}") from error
    finally:
        torch.set_rng_state(generator_state)
    return network


def outline(name: str, image_size: int) -> nn.Module:
    """Builds a network of two classes as `build` does, without parameter values.

    Uses torch's meta device: no memory, no seconds; the network can be traced, not run.

    Raises:
        ParameterError: as `build`.
    """
    try:
        with torch.device("meta"):
            return build(name, 2, image_size, seed=0)
    except ParameterError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
    # RegNets compute their widths with tensors, which need real values
    return build(name, 2, image_size, seed=0)


def _built(name: str, classes: int, image_size: int, modalities: int) -> nn.Module:
    if name in OWN:
        return OWN[name](classes)
    if halves := halves_of(name):
        first, second = (_half(half, image_size) for half in halves.values())
        return Dual((first, second), classes, image_size)
    of_cases = name.partition(":")[0]
    if of_cases == "late_fusion":
        return LateFusion(image_network(name), modalities, classes)
    if of_cases in HEADS:
        return TransMed(image_network(name), HEADS[of_cases], modalities, classes)
    options = _own_options(name, image_size)
    network = torchvision.models.get_model(name, num_classes=classes, **options)
    if name.startswith("squeezenet"):
        pool_before_output(network)
    return network


def _half(name: str, image_size: int) -> nn.Module:
    """Returns a network of which a dual takes the last map."""
    if name in OWN:
        return OWN[name](1)
    options = _own_options(name, image_size)
    if "aux_logits" in options:
        # The other half's images are normalised as ImageNet's: this one rescales them itself.
        options["transform_input"] = True
    return torchvision.models.get_model(name, **options)


def _own_options(name: str, image_size: int) -> dict[str, object]:
    """What the builder of this architecture must be told beside the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def _resnet_names() -> list[str]:
    families = ("resnet", "resnext", "wide_resnet")
    published = [name for name in _torchvision_names() if name.startswith(families)]
    return [*published, "small_resnet"]


def _mapping_names() -> list[str]:
    return [*OWN, *(name for name in _torchvision_names() if not name.startswith("vit_"))]


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.0)
