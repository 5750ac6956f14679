"""Registry of studies, each in a module of `medtl.comparison.papers` of the same name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from medtl.comparison.design import Plan
from medtl.errors import MedtlError
from medtl.settings.comparison import PAPERS, CompareSettings

Planner = Callable[[CompareSettings], Plan]

_PLANNERS: dict[str, Planner] = {}


def register_study(planner: Planner) -> Planner:
    """Registers a function that returns the plan of a study.

    The study has the name of the function and of its module, so that `study` can list the names
    without importing the modules.

    Raises:
        MedtlError: function and module have different names.
    """
    module = planner.__module__.rpartition(".")[2]
    if planner.__name__ != module:
        raise MedtlError(
            f"the study {planner.__name__} is defined in {module}.py: give both the same name"
        )
    _PLANNERS[module] = planner
    return planner


def plan_of(settings: CompareSettings) -> Plan:
    """Returns the plan of the study named in the settings.

    Raises:
        ParameterError: a parameter is wrong, or is decided by the study itself.
        MedtlError: the module of the study registers nothing.
    """
    module = importlib.import_module(f"{PAPERS}.{settings.study}")
    if settings.study not in _PLANNERS:
        raise MedtlError(
            f"{module.__file__} registers no study: decorate its function {settings.study} with "
            "@register_study"
        )
    plan = _PLANNERS[settings.study](settings)
    if note := _rates_note(plan):
        plan = dataclasses.replace(plan, notes=(*plan.notes, note))
    if len({cell.fraction for cell in plan.cells}) > 1 and "size" not in plan.pictures:
        plan = dataclasses.replace(plan, pictures=(*plan.pictures, "size"))
    return plan


def _rates_note(plan: Plan) -> str:
    """Returns a line on the learning rates, chosen or given; '' if no cell has one."""
    tried = {cell.optimizer: cell.rates for cell in plan.cells if cell.rates}
    given = sorted({cell.lr for cell in plan.cells if cell.lr})
    if not tried:
        if not given:
            return ""
        listed = ", ".join(f"{lr:g}" for lr in given)
        return (
            f"The learning rate is given ({listed}): with several rates the validation split "
            "chooses it."
        )
    by_optimizer = {name: ", ".join(f"{rate:g}" for rate in rates) for name, rates in tried.items()}
    among = " or ".join(
        f"{rates} ({', '.join(name for name in by_optimizer if by_optimizer[name] == rates)})"
        for rates in dict.fromkeys(by_optimizer.values())
    )
    seeds = len({cell.seed for cell in plan.cells})
    most = seeds + max(map(len, tried.values())) - 1
    return (
        f"Ours: the learning rate of each arm is chosen among {among} by the validation AUROC, "
        "ties by the validation loss. An arm is the cells that differ in their seeds only. The "
        f"rate is chosen with the first seed and kept for the others: {most} trainings for {seeds} "
        f"seed{'s' * (seeds > 1)} (rates, lr and seeds make it fewer). A solved head and a "
        "classical classifier have no learning rate."
    )
