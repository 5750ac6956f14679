"""`timm:NAME`: the networks of timm, with or without a pretrained tag (`timm:NAME.TAG`).

timm (Wightman, "PyTorch Image Models") is imported when such a name is first looked up. Its weights
come from its own loading and cache (`HF_HOME`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.networks.graph import UntraceableError, evaluating, register_leaves, trace
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import Architecture, LoadedWeights, nearest, register_family

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

PREFIX = "timm"
CHANNELS = 3  # of an image
_FURTHEST = 64  # pixels from an image size within which others are tried


@register_family(PREFIX, f"{PREFIX}:NAME")
@functools.cache
def timm_architecture(rest: str) -> Architecture:
    """Returns the architecture `timm:NAME` or `timm:NAME.TAG` of `rest`.

    Raises:
        ParameterError: timm has no such network, or no such tag of it; gives the nearest.
    """
    name = f"{PREFIX}:{rest}"
    try:
        import timm
    except ImportError as error:
        raise ParameterError(
            "architecture", name, "others where the package timm is not installed"
        ) from error

    bare, dot, _ = rest.partition(".")
    if not timm.is_model(bare):
        near = nearest(bare, timm.list_models())
        raise _unknown(name, near)
    tagged = [each for each in timm.list_pretrained() if each.partition(".")[0] == bare]
    if dot and rest not in tagged:
        raise _unknown(name, tagged or [bare])
    _register_structure()
    config = timm.get_pretrained_cfg(rest) or timm.models.PretrainedCfg()

    def make(classes: int, side: int, modalities: int) -> nn.Module:
        network = _created(rest, config, classes, side)
        try:
            trace(network)
        except UntraceableError as error:
            raise ParameterError("architecture", name, f"it cannot be cut: {error}") from error
        return network

    return Architecture(
        name,
        make,
        preprocessing=_expected(config),
        published=TimmWeights(rest, config) if config.has_weights else None,
        adapt=_adapted,
        nearest_sizes=lambda side: _nearest_sizes(rest, config, side),
        requirements=("timm",),
    )


def _unknown(name: str, near: list[str]) -> ParameterError:
    listed = ", ".join(f"{PREFIX}:{each}" for each in near)
    return ParameterError("architecture", name, f"the nearest names are {listed}")


@dataclass(frozen=True)
class TimmWeights:
    """Weights that timm publishes for a network, of its default tag if none is named."""

    name: str
    config: PretrainedCfg

    def preprocessing(self) -> Preprocessing:
        """Returns the preprocessing that timm states for the weights."""
        return _expected(self.config)

    def load(self) -> LoadedWeights:
        """Loads the weights by timm, from its cache or its hub."""
        import timm
        from huggingface_hub import constants

        repository, file = self.config.hf_hub_id, self.config.hf_hub_filename
        try:
            network = timm.create_model(self.name, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            url = str(self.config.url or "")
            place = f"the repository {repository}" if repository else url
            file = file or (Path(url).name if not repository else "model.safetensors")
            cache = (
                constants.HF_HUB_CACHE if repository else Path(torch.hub.get_dir(), "checkpoints")
            )
            raise MedtlError(
                f"cannot load the weights of {PREFIX}:{self.name} ({reason}): {file} of {place} is "
                f"not in {cache}; download it there (HF_HOME), give it as weights=FILE, or give "
                "weights=random"
            ) from error
        return LoadedWeights(network.state_dict(), f"{PREFIX}:{self.name}", self.preprocessing())


def _expected(config: PretrainedCfg) -> Preprocessing:
    return Preprocessing(tuple(config.mean), tuple(config.std), config.input_size[-1])


def _created(name: str, config: PretrainedCfg, classes: int, side: int) -> nn.Module:
    """Builds a network of timm for images of this side, without weights.

    Raises:
        ValueError: it cannot take such images.
    """
    import timm

    options: dict[str, Any] = {}
    if config.fixed_input_size and side != config.input_size[-1]:
        options["img_size"] = side
    try:
        network: nn.Module = timm.create_model(name, num_classes=classes, **options)
    except TypeError as error:
        if options and "img_size" in str(error):
            raise ValueError(f"it takes images of {config.input_size[-1]} pixels only") from error
        raise
    patch = _patch_side(network)
    if side % patch:
        raise ValueError(f"the side is no multiple of its patches of {patch} pixels")
    stages = (path for path, each in network.named_modules() if path and _is_stage(each))
    vars(network).update(containers=tuple(stages), output_layers=_output_layers(network))
    return network


def _output_layers(network: nn.Module) -> tuple[str, ...]:
    """Returns the names of output layers side by side; none of a single one."""
    outputs = cast(Callable[[], object], network.get_classifier)()
    if isinstance(outputs, nn.ModuleList):
        outputs = tuple(outputs)
    if not isinstance(outputs, tuple | list) or len(outputs) < 2:
        return ()
    modules = network.named_modules()
    return tuple(path for path, each in modules if any(each is output for output in outputs))


def _patch_side(network: nn.Module) -> int:
    """Returns the side in pixels of the patches into which a network divides images; 1 if none.

    Its convolution would leave out the last pixels of a side that is no multiple.
    """
    for module in network.modules():
        patches = getattr(module, "proj", None)
        if isinstance(patches, nn.Conv2d) and patches.in_channels == CHANNELS:
            return patches.stride[0] if patches.stride == patches.kernel_size else 1
    return 1


def _is_stage(module: nn.Module) -> bool:
    """Returns whether the children of a module are blocks, or parts of a head."""
    from timm.layers import ClassifierHead, NormMlpClassifierHead

    if isinstance(module, ClassifierHead | NormMlpClassifierHead):
        return True
    blocks = getattr(module, "blocks", None)
    is_line = isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0
    return is_line or type(module).__name__.endswith("Stage")


def _register_structure() -> None:
    """Registers timm's modules and functions that are one operation in a trace."""
    from timm.layers import (
        DropBlock2d,
        DropPath,
        PatchDropout,
        get_notrace_functions,
        get_notrace_modules,
    )

    # those that drop at random depend on their mode, which is known at run time only
    functions = [each for each in get_notrace_functions() if callable(each)]
    register_leaves({*get_notrace_modules(), DropBlock2d, DropPath, PatchDropout}, functions)


def _adapted(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns a state dict as timm's own loading changes it for a network.

    Position embeddings are interpolated, and names of original publications replaced.
    """
    own = sys.modules[type(network).__module__]
    change = getattr(own, "checkpoint_filter_fn", None)
    return state if change is None else change(dict(state), network)


def _nearest_sizes(name: str, config: PretrainedCfg, side: int) -> tuple[int, ...]:
    """Returns the nearest smaller and larger sides that a network takes, as far as found."""
    found = []
    for step in (-1, 1):
        sides = (side + step * distance for distance in count(1))
        found += [next(_taken(name, config, sides, side), 0)]
    usual = config.input_size[-1]
    return tuple(sorted({each for each in found if each})) or (usual,)


def _taken(name: str, config: PretrainedCfg, sides: Iterator[int], side: int) -> Iterator[int]:
    for each in sides:
        if each < 1 or abs(each - side) > _FURTHEST:
            return
        # most networks take multiples of 16 or 14, so that no other size is tried
        if each % 14 and each % 16:
            continue
        try:
            with torch.device("meta"), torch.no_grad():
                network = _created(name, config, 2, each)
                with evaluating(network):
                    network(torch.zeros(1, 3, each, each))
        except (AssertionError, RuntimeError, ValueError, NotImplementedError):
            continue
        yield each
