"""Tensors of a file for a network: names under wrappers and prefixes, shapes, what does not fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models import VisionTransformer

from medtl.networks.weights.numbered_layers import named_by_children
from medtl.networks.weights.torchvision_vit import named_as_torchvision
from medtl.networks.weights.transformers_vit import named_as_published

Adapt = Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]]

LEAST_SHARE = 0.9
"""Least share of the backbone's tensors that a file fills (our choice)."""

_NAMED = 3  # names in a message
_AVERAGES = ("ema", "teacher", "momentum", "averaged")
"""Weights that self-distillation and moving averages are used by, where a file has two networks."""


@dataclass(frozen=True)
class Match:
    """Tensors of a file for a network.

    Attributes:
        tensors: those that fit, by the network's names; also the head's.
        filled: how many of them are of the backbone.
        expected: number of the backbone's tensors.
        missing: names of the backbone's tensors that the file lacks.
        misshapen: those that it has in another shape, with both shapes.
        unknown: names of tensors within the backbone's layers that the network lacks.
        others: names of the file's tensors that are of no layer of the backbone.
        prefix: before the names in the file.
        resized: names of the tensors that were interpolated or whose channels were changed.
        one_channel: whether the first convolution of the file takes one channel, the network three.
    """

    tensors: dict[str, Tensor]
    filled: int
    expected: int
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unknown: tuple[str, ...]
    others: tuple[str, ...]
    prefix: str
    resized: tuple[str, ...]
    one_channel: bool

    @property
    def share(self) -> float:
        """Share of the backbone's tensors, in network or file, that fit."""
        return self.filled / max(1, self.expected + len(self.unknown))

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Key for the best of several: one that is used, else that with the most names known."""
        return self.share >= LEAST_SHARE, self.filled + len(self.misshapen), self.share

    @property
    def reasons(self) -> list[str]:
        """Names of the backbone's tensors that do not fit, a few of each kind, counted."""
        kinds = {
            "missing": self.missing,
            "of another shape": self.misshapen,
            "unknown to the network": self.unknown,
        }
        return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def listed(names: Sequence[str]) -> str:
    """Lists a few names, and counts the others."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def best_match(
    network: nn.Module, tensors: Mapping[str, Tensor], head: tuple[str, ...], adapt: Adapt | None
) -> Match:
    """Finds the names under which most tensors of a file fit a network.

    Tries each prefix that enough of the file's names have, the names of published families, and
    the network's names without their own first part (a file of `network.features`).

    Args:
        network: to be filled.
        tensors: of the file, by name.
        head: starts of the names of output layers, which may be missing or of another shape.
        adapt: brings a state dict with the network's names to the network; see `Architecture`.
    """
    own = _Own.of(network, head)
    best: Match | None = None
    for prefix in _prefixes(tensors, len(own.backbone) // 2):
        within = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        others = tuple(k for k in tensors if not k.startswith(prefix))
        for named in _forms(network, within, own):
            match = _match(own, _adapted(network, named, adapt), named, prefix, others)
            if best is None or match.rank > best.rank:
                best = match
            if best.filled == best.expected and not best.unknown:
                return best
    assert best is not None
    return best


@dataclass(frozen=True)
class _Own:
    """Tensors of a network: the head's and the backbone's, and starts of most names of these."""

    all: Mapping[str, Tensor]
    head: tuple[str, ...]
    backbone: frozenset[str]
    parts: frozenset[str]  # first parts of the backbone's names
    starts: tuple[str, ...]

    @classmethod
    def of(cls, network: nn.Module, head: tuple[str, ...]) -> _Own:
        state = network.state_dict()
        backbone = [k for k in state if not k.startswith(head) and not _is_counter(k)]
        starts = tuple(_common_starts(backbone, LEAST_SHARE * len(backbone)))
        return cls(state, head, frozenset(backbone), frozenset(map(_first, backbone)), starts)


def _first(name: str) -> str:
    return name.partition(".")[0]


def _is_counter(name: str) -> bool:
    """Returns whether a tensor is batch norm's counter, which old files lack."""
    return name.endswith("num_batches_tracked")


def _common_starts(names: Sequence[str], least: float) -> Iterator[str]:
    """Yields the starts, up to a dot, that at least so many names have; "" is the first."""
    counts = {"": len(names)}
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            start = ".".join(parts[:depth]) + "."
            counts[start] = counts.get(start, 0) + 1
    yield from (start for start, count in counts.items() if not start or count >= least)


def _prefixes(tensors: Mapping[str, Tensor], least: int) -> list[str]:
    """Returns the prefixes to try: averaged weights first, then the shorter first."""

    def is_average(prefix: str) -> bool:
        return any(word in prefix.lower().replace("_", ".").split(".") for word in _AVERAGES)

    found = _common_starts(list(tensors), max(1, least))
    return sorted(found, key=lambda prefix: (not is_average(prefix), prefix.count(".")))


def _forms(
    network: nn.Module, tensors: Mapping[str, Tensor], own: _Own
) -> Iterator[Mapping[str, Tensor]]:
    """Yields the tensors under each of the names that may be the network's."""
    yield tensors
    published = named_as_published(tensors)
    if published is not None:
        yield published
    if isinstance(network, VisionTransformer):
        renamed = named_as_torchvision(published or tensors)
        if renamed is not None:
            yield renamed
    numbered = named_by_children(network, tensors, own.starts)
    if numbered is not None:
        yield numbered


def _adapted(
    network: nn.Module, tensors: Mapping[str, Tensor], adapt: Adapt | None
) -> Mapping[str, Tensor]:
    if adapt is None:
        return tensors
    try:
        return adapt(network, tensors)
    except (ValueError, RuntimeError, KeyError, AssertionError, AttributeError):
        # of another network: the names or shapes of the unchanged tensors say so
        return tensors


def _match(
    own: _Own,
    tensors: Mapping[str, Tensor],
    before: Mapping[str, Tensor],
    prefix: str,
    others: tuple[str, ...],
) -> Match:
    start = max(own.starts, key=lambda start: sum(f"{start}{k}" in own.all for k in tensors))
    fitting: dict[str, Tensor] = {}
    misshapen: list[str] = []
    unknown: list[str] = []
    outside: list[str] = []
    resized: list[str] = []
    one_channel = False
    for name, tensor in tensors.items():
        ours = f"{start}{name}"
        theirs = own.all.get(ours)
        is_part = ours in own.backbone
        if theirs is None:
            if _is_counter(name):
                continue
            is_within = _first(ours) in own.parts and not ours.startswith(own.head)
            (unknown if is_within else outside).append(f"{prefix}{name}")
            continue
        changed = _channels_changed(tensor, theirs)
        if changed.shape != theirs.shape:
            if is_part:
                misshapen.append(f"{ours} ({_shape(tensor)}, not {_shape(theirs)})")
            continue
        if changed is not tensor:
            one_channel = tensor.shape[1] == 1
        if changed is not tensor or (name in before and before[name].shape != tensor.shape):
            resized.append(ours)
        fitting[ours] = changed
    named_misshapen = {each.partition(" ")[0] for each in misshapen}
    missing = [k for k in own.all if k in own.backbone - fitting.keys() - named_misshapen]
    return Match(
        fitting,
        filled=len(own.backbone & fitting.keys()),
        expected=len(own.backbone),
        missing=tuple(missing),
        misshapen=tuple(misshapen),
        unknown=tuple(unknown),
        others=(*outside, *others),
        prefix=prefix,
        resized=tuple(resized),
        one_channel=one_channel,
    )


def _channels_changed(tensor: Tensor, ours: Tensor) -> Tensor:
    """Returns a first convolution [O, 1 or 3, H, W] for three channels or one.

    Either way, three equal channels give the activations that one gives.
    """
    if tensor.ndim != 4 or ours.ndim != 4:
        return tensor
    channels, wanted = tensor.shape[1], ours.shape[1]
    if (channels, wanted) == (1, 3):
        return tensor.repeat(1, 3, 1, 1) / 3
    if (channels, wanted) == (3, 1):
        return tensor.sum(dim=1, keepdim=True)
    return tensor


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


def fill(network: nn.Module, match: Match) -> None:
    """Loads the tensors that fit into the network; the others stay as they are."""
    state = OrderedDict(match.tensors)
    # load_state_dict changes old formats of layers by the versions in here; MNASNet needs them
    setattr(state, "_metadata", getattr(network.state_dict(), "_metadata", None))  # noqa: B010
    network.load_state_dict(state, strict=False)
