"""Checks of a comparison's plan before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from torch import nn

from medtl.comparison.design import PRETRAINED_ON, Plan
from medtl.data.manifest import EMBEDDED
from medtl.errors import ParameterError
from medtl.networks.cutoffs import resolve
from medtl.networks.normalisation import check_normalise
from medtl.networks.pretrained import check_weights, preprocessing
from medtl.networks.registry import outline
from medtl.pipeline.parameter_checks import check_places
from medtl.pipeline.setup import MLFLOW_SCHEMES
from medtl.settings.comparison import CompareSettings
from medtl.tracking.lineage import architecture_of


def check_plan(settings: CompareSettings, plan: Plan) -> None:
    """Refuses a study if a parameter is invalid in every cell that uses it.

    If it is valid for some networks, only the cells of the others fail.

    Raises:
        ParameterError: naming the parameter.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    check_normalise(settings.normalise)
    for name in ("different", "same"):
        _check_source(name, getattr(settings, name))
    starts: dict[str, list[str]] = {}
    for cell in plan.cells:
        starts.setdefault(cell.weights, []).append(cell.architecture)
    for start, names in starts.items():
        if start.startswith(MLFLOW_SCHEMES):
            architecture_of(start)
        elif start != "auto" and not start.startswith(PRETRAINED_ON):
            _taken_by_some(names, partial(check_weights, weights=start))
    networks: dict[str, nn.Module] = {}

    def draw(name: str) -> None:
        size = settings.image_size or plan.image_size or preprocessing(name).image_size
        networks[name] = outline(name, size)

    _taken_by_some([cell.architecture for cell in plan.cells], draw)
    for cutoff in settings.listed("cutoffs"):
        if cutoff == "blocks":
            continue
        try:
            _taken_by_some(networks, lambda name: resolve(networks[name], name, cutoff))  # noqa: B023
        except ParameterError as error:
            raise ParameterError("cutoffs", cutoff, error.allowed) from error


def _check_source(name: str, source: str) -> None:
    """Checks a source of `alzubaidi2020`: an embedded set, the user's data, or weights."""
    if source in ("", "random", "imagenet", *EMBEDDED) or source.startswith(MLFLOW_SCHEMES):
        return
    if not Path(source).expanduser().exists():
        raise ParameterError(
            name, source, f"a folder, a file, a model's URI, or {' or '.join(EMBEDDED)}"
        )


def _taken_by_some(names: Iterable[str], check: Callable[[str], object]) -> None:
    """Raises the first error of `check` if it refuses every architecture."""
    names, errors = list(dict.fromkeys(names)), []
    for name in names:
        try:
            check(name)
        except ParameterError as error:
            errors.append(error)
    if len(errors) == len(names):
        raise errors[0]
