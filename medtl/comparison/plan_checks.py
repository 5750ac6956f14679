"""Checks of a comparison's plan before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
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
from medtl.pipeline.setup import MLFLOW_SCHEMES, started_from
from medtl.settings.comparison import CompareSettings
from medtl.tracking.lineage import architecture_of


def checked_plan(settings: CompareSettings, plan: Plan) -> Plan:
    """Refuses a study if a parameter is invalid in every cell that uses it.

    If it is valid for some networks, only the cells of the others fail. Cells of an architecture
    that cannot have their weights are left out of the plan that is returned, with a note.

    Raises:
        ParameterError: naming the parameter; also if weights fit no architecture, or an
            architecture no weights.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    check_normalise(settings.normalise)
    for name in ("different", "same"):
        _check_source(name, getattr(settings, name))
    plan = _with_fitting_weights(plan)
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
    return plan


def _with_fitting_weights(plan: Plan) -> Plan:
    """Returns the plan without cells whose architecture cannot have their weights."""
    pairs = dict.fromkeys((cell.architecture, cell.weights) for cell in plan.cells)
    misfits: dict[tuple[str, str], ParameterError] = {}
    for architecture, start in pairs:
        try:
            if start.startswith(MLFLOW_SCHEMES):
                started_from(architecture, start, architecture_of(start))
            elif start != "auto" and not start.startswith(PRETRAINED_ON):
                check_weights(architecture, start)
        except ParameterError as error:
            misfits[architecture, start] = error
    fitting = pairs.keys() - misfits.keys()
    architectures, starts = ({pair[place] for pair in fitting} for place in (0, 1))
    for (architecture, start), misfit in misfits.items():
        if architecture not in architectures or start not in starts:
            raise misfit
    notes = (
        f"left out: {name} with weights {start}: {misfit}"
        for (name, start), misfit in misfits.items()
    )
    cells = tuple(each for each in plan.cells if (each.architecture, each.weights) in fitting)
    return dataclasses.replace(
        plan,
        cells=cells,
        pairs=tuple((a, b) for a, b in plan.pairs if a in cells and b in cells),
        notes=(*plan.notes, *notes),
    )


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
