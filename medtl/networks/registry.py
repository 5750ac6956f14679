"""Registry of architectures: their names, and networks built by name.

An architecture is registered by a file of `medtl/networks/architectures/`, or by a module of
another package that the entry point group `medtl.architectures` names. Both are imported when a
name is first looked up.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import logging
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from medtl.errors import ParameterError
from medtl.networks import architectures
from medtl.networks.dense_head import put_dense_layer
from medtl.networks.graph import evaluating
from medtl.networks.preprocessing import Preprocessing

ENTRY_POINTS = "medtl.architectures"
IMAGE_NETWORK = "cnn"  # attribute of an architecture of cases: the network that reads each image
GREY_MEAN, GREY_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
_SEPARATORS = ":+,"  # within composed names, and in lists of names

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class LoadedWeights:
    """Published weights in memory.

    Attributes:
        state: tensors by the names of the network's state dict; the head may differ in shape.
        source: URL or file that they come from.
        preprocessing: what they expect of images.
    """

    state: Mapping[str, Tensor]
    source: str
    preprocessing: Preprocessing


class PublishedWeights(Protocol):
    """Weights that the authors of an architecture publish (`weights=imagenet`)."""

    def preprocessing(self) -> Preprocessing:
        """Returns what the default weights expect of images; reads no file."""
        ...

    def load(self) -> LoadedWeights:
        """Loads the weights, and downloads them if needed.

        Raises:
            MedtlError: they are not on this machine and cannot be downloaded.
        """
        ...


@dataclass(frozen=True)
class Architecture:
    """Constructor of a network, with the facts that are known before it is built.

    Attributes:
        name: value of the parameter `architecture`.
        make: builds a randomly initialised network from the number of classes, the side of the
            images in pixels, and the number of images in a case.
        preprocessing: what it expects of images; None where published weights or its parts say it.
        takes_cases: whether it takes the M images of a case, [B, M x 3, S, S], at once.
        makes_maps: whether it has feature maps [B, C, H, W] that `dual:` can join.
        output_layer: name of the linear layer behind its pooled features, if it can read the
            images of a case one by one (`late_fusion:NAME`); else empty.
        published: weights with `weights=imagenet`; None where there are none.
        parts: names of the architectures within, by their path in the network.
        as_part: its form within another architecture; None if that is the same.
        adapt: brings a foreign state dict (other names, another image size) to a network of this
            architecture; None if state dicts are used as they are.
        nearest_sizes: the sides of images nearest to one that it cannot take; None if unknown.
        requirements: packages that a served model needs for it.
    """

    name: str
    make: Callable[[int, int, int], nn.Module]
    preprocessing: Preprocessing | None = None
    takes_cases: bool = False
    makes_maps: bool = True
    output_layer: str = ""
    published: PublishedWeights | None = None
    parts: Mapping[str, str] = field(default_factory=dict)
    as_part: Architecture | None = None
    adapt: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    nearest_sizes: Callable[[int], Sequence[int]] | None = None
    requirements: tuple[str, ...] = ()


_architectures: dict[str, Architecture] = {}
_families: dict[str, tuple[str, Callable[[str], Architecture]]] = {}
_providers: list[str] = []  # the package whose entry point is being loaded
_fitting: set[tuple[str, int, int, int]] = set()  # arguments of `build` that gave a usable network
_broken: dict[str, str] = {}  # packages whose entry point cannot be loaded, with the reason


def register(architecture: Architecture) -> None:
    """Registers an architecture under its name.

    Raises:
        ValueError: the name is taken, empty, or contains one of `:+,`.
    """
    name = architecture.name
    if not name or set(name) & set(_SEPARATORS):
        raise ValueError(f"{name!r} cannot name an architecture: it is empty or contains :, + or ,")
    if name in _architectures:
        raise ValueError(f"there is an architecture {name} already")
    needed = (*architecture.requirements, *_providers)
    _architectures[name] = dataclasses.replace(architecture, requirements=needed)


def register_architecture(
    name: str,
    *,
    image_size: int,
    takes_cases: bool = False,
    fixed_size: bool = False,
    makes_maps: bool = True,
    output_layer: str = "",
    mean: tuple[float, float, float] = GREY_MEAN,
    std: tuple[float, float, float] = GREY_STD,
    published: PublishedWeights | None = None,
) -> Callable[[Factory], Factory]:
    """Registers the decorated class or function as an architecture.

    It is called with `classes=K` and returns a network from images [B, 3, S, S] to scores [B, K].
    With `takes_cases` it is also called with `modalities=M`, takes [B, M x 3, S, S], and keeps M as
    its attribute `modalities`. With `fixed_size` it is also called with `image_size=S`, for a
    network whose shape depends on S.

    Args:
        name: value of the parameter `architecture`, without `:`, `+` and comma.
        image_size: usual side of images in pixels.
        takes_cases: whether it takes all images of a case at once.
        fixed_size: whether it is built for one image size.
        makes_maps: False for a network without feature maps [B, C, H, W].
        output_layer: name of the linear layer behind pooled features, if the network may read each
            image of a case (`late_fusion:NAME`).
        mean: subtracted from each channel of images in 0..1, where no weights are published.
        std: by which each channel is divided then.
        published: weights with `weights=imagenet`.
    """

    def decorate(factory: Factory) -> Factory:
        def make(classes: int, side: int, modalities: int) -> nn.Module:
            options = {"classes": classes}
            if takes_cases:
                options["modalities"] = modalities
            if fixed_size:
                options["image_size"] = side
            return factory(**options)

        register(
            Architecture(
                name,
                make,
                Preprocessing(mean, std, image_size),
                takes_cases=takes_cases,
                makes_maps=makes_maps and not takes_cases,
                output_layer=output_layer,
                published=published,
            )
        )
        return factory

    return decorate


def register_case_architecture(name: str, *, image_network: str) -> Callable[[Factory], Factory]:
    """Registers the decorated class or function as a network of cases around another network.

    It is called with `network`, from images [B, 3, S, S] to features [B, F], with `width=F`,
    `modalities=M` and `classes=K`, and returns a network from cases [B, M x 3, S, S] to scores
    [B, K]. This keeps `network` as its attribute `cnn`, and M as `modalities`.

    Args:
        name: value of the parameter `architecture`; `NAME:OTHER` reads the images by OTHER, an
            architecture with an `output_layer`.
        image_network: architecture of `network` unless another is named.
    """

    def decorate(factory: Factory) -> Factory:
        def around(full_name: str, other: str) -> Architecture:
            def make(classes: int, side: int, modalities: int) -> nn.Module:
                network, width = _without_output(part(other), side)
                return factory(network=network, width=width, modalities=modalities, classes=classes)

            parts = {IMAGE_NETWORK: other}
            return Architecture(full_name, make, takes_cases=True, makes_maps=False, parts=parts)

        def named(other: str) -> Architecture:
            readers = [each for each, found in _all().items() if found.output_layer]
            if other not in readers:
                near = ", ".join(f"{name}:{each}" for each in nearest(other, readers))
                raise ParameterError(
                    "architecture", f"{name}:{other}", f"the nearest names are {near}"
                )
            return around(f"{name}:{other}", other)

        register(around(name, image_network))
        register_family(name, "")(named)
        return factory

    return decorate


def register_family(
    prefix: str, usage: str
) -> Callable[[Callable[[str], Architecture]], Callable[[str], Architecture]]:
    """Registers the decorated function as the architectures `PREFIX:REST`.

    It is called with REST, and returns the architecture or raises `ParameterError`.

    Args:
        prefix: what stands before the colon.
        usage: the form of such names, for messages; empty if PREFIX alone is a name too.
    """

    def decorate(find_rest: Callable[[str], Architecture]) -> Callable[[str], Architecture]:
        _families[prefix] = (usage, find_rest)
        return find_rest

    return decorate


def find(name: str) -> Architecture:
    """Returns the architecture of a name.

    Raises:
        ParameterError: there is none; gives the nearest names, and packages that cannot be loaded.
    """
    if name not in _architectures:
        _import_own()
    prefix, colon, rest = name.partition(":")
    if name not in _architectures and not (colon and prefix in _families):
        _import_others()
    if name in _architectures:
        return _architectures[name]
    if colon and prefix in _families:
        return _families[prefix][1](rest)
    near = nearest(name, [*architecture_names(), *(use for use, _ in _families.values() if use)])
    reasons = [f"{package} cannot be loaded ({reason})" for package, reason in _broken.items()]
    hint = "; ".join(reasons) or "one of another package needs that package installed"
    raise ParameterError("architecture", name, f"the nearest names are {', '.join(near)}; {hint}")


def part(name: str) -> Architecture:
    """Returns an architecture in its form within another."""
    found = find(name)
    return found.as_part or found


def architecture_names() -> tuple[str, ...]:
    """Returns the names of all architectures, sorted, but for those composed of several."""
    return tuple(sorted(_all()))


def joinable_names() -> tuple[str, ...]:
    """Returns the names of the architectures with maps that `dual:` can join, sorted."""
    return tuple(sorted(name for name, found in _all().items() if found.makes_maps))


def check_architecture(name: str) -> None:
    """Raises `ParameterError`, with the nearest names, when there is no architecture `name`."""
    find(name)


def image_network(name: str) -> str:
    """Returns the architecture that reads each image, of one that takes cases; else ""."""
    return find(name).parts.get(IMAGE_NETWORK, "")


def published_within(architecture: Architecture) -> dict[str, Architecture]:
    """Returns architectures with published weights by their path; that of the whole is ""."""
    if architecture.published is not None:
        return {"": architecture}
    return {
        f"{path}.{within}".removesuffix("."): found
        for path, name in architecture.parts.items()
        for within, found in published_within(part(name)).items()
    }


def packages(name: str) -> tuple[str, ...]:
    """Returns the packages, beside PyTorch's, without which an architecture cannot be served."""
    found = find(name)
    within = (package for each in found.parts.values() for package in packages(each))
    return tuple(dict.fromkeys((*found.requirements, *within)))


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Returns the three of these names that are most like `name`."""
    return difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.0)


def build(
    name: str, classes: int, image_size: int, seed: int, modalities: int = 1, hidden: int = 0
) -> nn.Module:
    """Builds a randomly initialised network from images [B, 3, S, S] to scores [B, `classes`].

    The same seed gives the same weights; the state of torch's global generator is restored.

    Args:
        name: architecture.
        classes: number of scores.
        image_size: side S in pixels; some networks (ViT, MaxViT) are built for one size.
        seed: of the weights.
        modalities: number M of images in a case; architectures of cases take [B, M x 3, S, S], all
            others one image.
        hidden: units of a dense ReLU layer before the output layer; 0 for none. Does not change
            the other weights.

    Raises:
        ParameterError: there is no such architecture, or it cannot take images of this size or
            cases of so many.
    """
    architecture = find(name)
    if modalities != 1 and not architecture.takes_cases:
        several = [each for each, found in _all().items() if found.takes_cases]
        raise ParameterError(
            "architecture",
            name,
            f"it takes one image, these cases have {modalities}: give {' or '.join(several)}",
        )
    generator_state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        network = architecture.make(classes, image_size, modalities)
        if hidden:
            put_dense_layer(network, hidden)
        if (name, image_size, modalities, hidden) not in _fitting:
            with evaluating(network), torch.no_grad():
                network(torch.zeros(1, 3 * modalities, image_size, image_size))
            _fitting.add((name, image_size, modalities, hidden))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".") or "it does not fit"
        sizes = architecture.nearest_sizes(image_size) if architecture.nearest_sizes else ()
        near = f"; the nearest that it takes are {' and '.join(map(str, sizes))}" if sizes else ""
        raise ParameterError("image_size", image_size, f"{name} says: {reason}{near}") from error
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
        is_meta = isinstance(error.__cause__, RuntimeError) and "meta" in str(error.__cause__)
        if not (is_meta or isinstance(error.__cause__, NotImplementedError)):
            raise
    # RegNets, and some of timm's, compute settings with tensors, which need real values
    return build(name, 2, image_size, seed=0)


def _without_output(architecture: Architecture, side: int) -> tuple[nn.Module, int]:
    """Returns a network from images [B, 3, S, S] to pooled features [B, F], and F."""
    network = architecture.make(1, side, 1)
    output = network.get_submodule(architecture.output_layer)
    if not isinstance(output, nn.Linear):
        raise TypeError(f"{architecture.name}: {architecture.output_layer} is no linear layer")
    network.set_submodule(architecture.output_layer, nn.Identity())
    return network, output.in_features


def _all() -> dict[str, Architecture]:
    _import_own()
    _import_others()
    return _architectures


def _import_own() -> None:
    """Imports every module of `medtl/networks/architectures/`."""
    for module in pkgutil.iter_modules(architectures.__path__, f"{architectures.__name__}."):
        importlib.import_module(module.name)


def _import_others() -> None:
    """Loads the entry points of other packages; one that fails is reported once, in one line."""
    for point in entry_points(group=ENTRY_POINTS):
        _load(point)


def _load(point: EntryPoint) -> None:
    package = point.dist.name if point.dist is not None else point.module
    before = dict(_architectures)
    _providers.append(package)
    try:
        point.load()
    except Exception as error:  # code of another package
        _architectures.clear()
        _architectures.update(before)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if package not in _broken:
            logging.getLogger(__name__).warning(
                "architectures of the package %s are left out, it cannot be loaded: %s",
                package,
                reason,
            )
        _broken[package] = reason
    finally:
        _providers.pop()
