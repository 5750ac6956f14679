"""Building any of torchvision's classification networks by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torchvision
from torch import nn

from medtl.errors import ParameterError
from medtl.networks.graph import evaluating
from medtl.networks.small_resnet import SmallResNet

# Architectures of this project, beside torchvision's: each is built from its number of classes.
OWN: dict[str, Callable[[int], nn.Module]] = {"small_resnet": SmallResNet}


def architecture_names() -> tuple[str, ...]:
    """The names of all architectures, sorted."""
    return tuple(sorted([*OWN, *torchvision.models.list_models(module=torchvision.models)]))


def check_architecture(name: str) -> None:
    """Raises `ParameterError`, with the nearest names, when there is no architecture `name`."""
    names = architecture_names()
    if name not in names:
        near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.3)
        raise ParameterError("architecture", name, f"the nearest names are {', '.join(near)}")


def build(name: str, classes: int, image_size: int, seed: int) -> nn.Module:
    """A randomly initialised network from images [B, 3, S, S] to scores [B, `classes`].

    The same seed gives the same weights; torch's global generator is left as it was. Inception
    and GoogLeNet come without their auxiliary heads. Transformers whose shape depends on the
    image size (ViT, MaxViT) are built for `image_size`.

    Raises:
        ParameterError: there is no such architecture, or it cannot take images of this size.
    """
    check_architecture(name)
    generator_state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        network = _built(name, classes, image_size)
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise ParameterError("image_size", image_size, f"{name} says: {reason}") from error
    finally:
        torch.set_rng_state(generator_state)
    return network


def _built(name: str, classes: int, image_size: int) -> nn.Module:
    if name in OWN:
        return OWN[name](classes)
    options = _own_options(name, image_size)
    return torchvision.models.get_model(name, num_classes=classes, **options)


def _own_options(name: str, image_size: int) -> dict[str, object]:
    """What the builder of this architecture must be told beside the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}
