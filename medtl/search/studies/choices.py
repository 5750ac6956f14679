"""Choices of the user for a study, with the study's defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from medtl.data.table import EMBEDDED
from medtl.errors import ParameterError
from medtl.networks.architectures import check_architecture, outline
from medtl.networks.cutpoints import cut_points
from medtl.networks.weights import preprocessing
from medtl.search.studies.cells import Cell
from medtl.settings import CompareSettings

# Small enough to be pretrained on embedded images, on two processor cores, in half a minute each.
SMALL = ("small_resnet", "shufflenet_v2_x0_5")
SMALL_SIZE = 96  # pixels
SMALLER_SIZE = 48  # pixels, for networks that take longer

SERIES = {"auto": "pretrained", "imagenet": "pretrained", "random": "random"}
"""What weights are called; others by themselves."""

RATES, SGD_RATES = (1e-4, 3e-4, 1e-3), (1e-3, 3e-3, 1e-2)
"""Learning rates to choose among."""

SMALL_RATES, SMALL_SGD_RATES = (3e-4, 1e-3), (3e-3, 1e-2)
"""The same on embedded images."""

REPEATS = (0, 1, 2, 3, 4)
"""Seeds of studies whose arms are told apart by small differences."""


def is_embedded(settings: CompareSettings) -> bool:
    """Whether the study runs on images that the project brings along: then it is kept small."""
    return settings.data in EMBEDDED


def architectures(
    settings: CompareSettings, published: tuple[str, ...], small: tuple[str, ...] = SMALL
) -> tuple[str, ...]:
    """The user's; else those of the paper, or on embedded images small ones in their place.

    Raises:
        ParameterError: there is no such architecture.
    """
    chosen = settings.listed("architecture") or (small if is_embedded(settings) else published)
    for name in chosen:
        check_architecture(name)
    return chosen


def weights(settings: CompareSettings, *own: str) -> tuple[str, ...]:
    """Returns the user's, else the study's own."""
    return settings.listed("weights") or own


def optimizers(settings: CompareSettings, *own: str) -> tuple[str, ...]:
    """Returns the user's, else the study's own."""
    return settings.listed("optimizers") or own or ("adam",)


def fractions(settings: CompareSettings, *own: float) -> tuple[float, ...]:
    """Returns the shares of the training split: the user's, else the study's own."""
    return tuple(map(float, settings.listed("fractions"))) or own or (1.0,)


def seeds(settings: CompareSettings, *own: int) -> tuple[int, ...]:
    """Returns the user's, else the study's own, else that of the splits."""
    return tuple(map(int, settings.listed("seeds"))) or own or (settings.seed,)


def several_seeds(settings: CompareSettings, *small: int) -> tuple[int, ...]:
    """Returns the user's seeds, else five; on embedded images those of `small`, else one."""
    return seeds(settings, *(small if is_embedded(settings) else REPEATS))


def hidden_units(settings: CompareSettings, own: int = 0) -> tuple[int, ...]:
    """Returns the units of a dense layer before the output layer: the user's, else the study's."""
    return tuple(map(int, settings.listed("hidden"))) or (own,)


def learning_rates(settings: CompareSettings, optimizer: str) -> tuple[float, ...]:
    """Returns the candidates for the learning rate of an arm: the user's, else ours.

    They are the same from whatever cut-off and weights on, so that depth or source and learning
    rate do not vary together.
    """
    if settings.lr:
        return (settings.lr,)
    if listed := settings.listed("rates"):
        return tuple(dict.fromkeys(map(float, listed)))
    if is_embedded(settings):
        return SMALL_SGD_RATES if optimizer == "sgd" else SMALL_RATES
    return SGD_RATES if optimizer == "sgd" else RATES


def at_rate(settings: CompareSettings, lr: float, cells: Iterable[Cell]) -> list[Cell]:
    """Returns the cells at the learning rate of a study, unless the user named any."""
    if settings.lr or settings.rates:
        return list(cells)
    return [cell.at_rate(lr) for cell in cells]


def finetuned(
    settings: CompareSettings,
    series: str,
    architecture: str,
    start: str,
    cutoff: str,
    *own: str,
    own_hidden: int = 0,
) -> list[Cell]:
    """What is trained by gradient from a cut-off on, by each of the user's or `own` optimizers.

    The same with each number of units of a dense layer, the user's or `own_hidden`.
    """
    return [
        Cell(
            series,
            architecture,
            start,
            cutoff=cutoff,
            optimizer=optimizer,
            augment=settings.augment,
            hidden=hidden,
            **_rate(learning_rates(settings, optimizer)),
        )
        for hidden in hidden_units(settings, own_hidden)
        for optimizer in optimizers(settings, *own)
    ]


def _rate(candidates: tuple[float, ...]) -> dict[str, object]:
    """Returns the fields of a cell: one learning rate, or several to choose among."""
    if len(candidates) == 1:
        return {"lr": candidates[0]}
    return {"lr": 0.0, "rates": candidates}


def blocks(settings: CompareSettings, architecture: str) -> tuple[str, ...]:
    """Returns the coarse cut-offs in forward order, the first as `all` and the last as `head`."""
    size = settings.image_size or SMALL_SIZE
    if not (settings.image_size or is_embedded(settings)):
        size = preprocessing(architecture).image_size
    points = cut_points(outline(architecture, size), "blocks")
    _, *between, _ = (point.name for point in points)
    return ("all", *between, "head")


def spelled_out(settings: CompareSettings, architecture: str) -> tuple[str, ...]:
    """Returns the cut-offs that the user listed, `blocks` replaced by all of them."""
    listed = settings.listed("cutoffs")
    named = [blocks(settings, architecture) if each == "blocks" else (each,) for each in listed]
    return tuple(dict.fromkeys(cutoff for part in named for cutoff in part))


def refuse_chosen(settings: CompareSettings, *names: str) -> None:
    """Raises `ParameterError` where the user gave a parameter that the study itself decides."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    for name in names:
        value = getattr(settings, name)
        if value != defaults[name]:
            raise ParameterError(
                name, value, f"study={settings.study} decides it; leave it out, or take study=grid"
            )
