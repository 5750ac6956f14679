"""`timm:NAME`: the networks of timm, with or without a pretrained tag (`timm:NAME.TAG`).

Arguments of timm's constructor follow a question mark: `timm:NAME?init_values=1e-05&reg_tokens=4`.
timm (Wightman, "PyTorch Image Models") is imported when such a name is first looked up. Its weights
come from its own loading and cache (`HF_HOME`, `HF_HUB_OFFLINE`), and so do models of timm on the
hub (`hf:ORG/NAME`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from medtl.errors import MedtlError, ParameterError
from medtl.imaging.rendering import INTERPOLATIONS
from medtl.imaging.window_syntax import BILINEAR
from medtl.networks.graph import UntraceableError, evaluating, register_leaves, trace
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.registry import Architecture, LoadedWeights, nearest, register_family
from medtl.networks.weights_file import read_weights

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

PREFIX = "timm"
HUB = "hf:"
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

    published, _, arguments = rest.partition("?")
    bare, dot, _ = published.partition(".")
    if not timm.is_model(bare):
        near = nearest(bare, timm.list_models())
        raise _unknown(name, near)
    tagged = [each for each in timm.list_pretrained() if each.partition(".")[0] == bare]
    if dot and published not in tagged:
        raise _unknown(name, tagged or [bare])
    _register_structure()
    config = timm.get_pretrained_cfg(published) or timm.models.PretrainedCfg()

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
        # with other arguments it is another network than the published one
        published=TimmWeights(rest, config) if config.has_weights and not arguments else None,
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


@dataclass(frozen=True)
class HubModel:
    """Model of timm on the hub of Hugging Face, from its description (`config.json`)."""

    repository: str
    architecture: str
    config: PretrainedCfg

    def preprocessing(self) -> Preprocessing:
        """Returns the preprocessing that the description states."""
        return _expected(self.config)

    def load(self) -> LoadedWeights:
        """Loads the weights from the cache or the hub, without running pickled code."""
        named = self.config.hf_hub_filename
        files = (named,) if named else ("model.safetensors", "pytorch_model.bin")
        state = read_weights(_hub_file(self.repository, *files))
        return LoadedWeights(state, f"{HUB}{self.repository}", self.preprocessing())


_SET_HERE = {
    *("img_size", "num_classes", "in_chans", "dynamic_img_size", "dynamic_img_pad"),
    *("strict_img_size", "features_only", "pretrained"),
}
"""Arguments of a model on the hub that depend on the data, or change no tensor."""


@functools.cache
def hub_model(weights: str) -> HubModel:
    """Returns the model of timm on the hub that `weights=hf:ORG/NAME` names.

    Raises:
        ParameterError: no such form, or no model of timm.
        MedtlError: its description is not in the cache and cannot be downloaded.
    """
    from timm.models import PretrainedCfg

    repository = weights.removeprefix(HUB)
    if len([each for each in repository.split("/") if each]) != 2:
        raise ParameterError("weights", weights, f"{HUB}ORG/NAME, a model of timm on the hub")
    described = json.loads(_hub_file(repository, "config.json").read_text("utf-8"))
    if not isinstance(described, dict) or "architecture" not in described:
        raise ParameterError(
            "weights",
            weights,
            "a model of timm on the hub; of another library, download its file of weights "
            "(model.safetensors) and give that with architecture=NAME",
        )
    stated = described.get("pretrained_cfg", described)
    known = {each.name for each in dataclasses.fields(PretrainedCfg)}
    config = PretrainedCfg(**{key: value for key, value in stated.items() if key in known})
    options = {
        key: value
        for key, value in described.get("model_args", {}).items()
        if key not in _SET_HERE and value not in ("", None)
    }
    arguments = "&".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for key, value in options.items()
    )
    name = f"{PREFIX}:{described['architecture']}" + (f"?{arguments}" if arguments else "")
    return HubModel(repository, name, config)


def _hub_file(repository: str, *names: str) -> Path:
    """Returns the first of these files that a repository of the hub has, from its cache if there.

    Raises:
        MedtlError: none is in the cache, and none can be downloaded.
    """
    from huggingface_hub import constants, hf_hub_download

    reason = ""
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except (OSError, ValueError) as error:
            reason = reason or " ".join(str(error).split())[:200]
    raise MedtlError(
        f"cannot load {HUB}{repository} ({reason}): {' or '.join(names)} of the repository "
        f"{repository} is not in {constants.HF_HUB_CACHE}; download it there (HF_HOME), or give "
        "its file as weights=FILE"
    )


def _expected(config: PretrainedCfg) -> Preprocessing:
    known = config.interpolation in INTERPOLATIONS
    return Preprocessing(
        tuple(config.mean),
        tuple(config.std),
        config.input_size[-1],
        interpolation=config.interpolation if known else BILINEAR,
        crop=config.crop_pct or 1.0,
    )


def _created(name: str, config: PretrainedCfg, classes: int, side: int) -> nn.Module:
    """Builds a network of timm for images of this side, without weights.

    Raises:
        ValueError: it cannot take such images.
    """
    import timm

    name, _, arguments = name.partition("?")
    options = _options(arguments)
    if config.fixed_input_size and side != config.input_size[-1]:
        options["img_size"] = side
    try:
        network: nn.Module = timm.create_model(name, num_classes=classes, **options)
    except TypeError as error:
        if "img_size" in options and "img_size" in str(error):
            raise ValueError(f"it takes images of {config.input_size[-1]} pixels only") from error
        if arguments:
            given = f"{PREFIX}:{name}?{arguments}"
            raise ParameterError("architecture", given, f"timm says: {error}") from error
        raise
    patch = _patch_side(network)
    if side % patch:
        raise ValueError(f"the side is no multiple of its patches of {patch} pixels")
    stages = (path for path, each in network.named_modules() if path and _is_stage(each))
    vars(network).update(containers=tuple(stages), output_layers=_output_layers(network))
    return network


def _options(arguments: str) -> dict[str, Any]:
    """Parses `NAME=VALUE&NAME=VALUE`; a value is JSON, or else text.

    >>> _options("init_values=1e-05&global_pool=avg")
    {'init_values': 1e-05, 'global_pool': 'avg'}
    """
    options: dict[str, Any] = {}
    for each in filter(None, arguments.split("&")):
        key, _, value = each.partition("=")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options


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
