"""Plans of comparisons by name."""

from __future__ import annotations

import dataclasses

from medtl.comparison.design import PRETRAINED_ON, Cell, Plan, arm, cell_names
from medtl.comparison.papers.alzubaidi2020 import alzubaidi2020
from medtl.comparison.papers.boit2019 import boit2019
from medtl.comparison.papers.dai2021 import dai2021
from medtl.comparison.papers.grid import grid
from medtl.comparison.papers.kandel2020 import kandel2020
from medtl.comparison.papers.kim2022 import kim2022
from medtl.comparison.papers.trinh2021 import trinh2021
from medtl.comparison.papers.zhang2023 import zhang2023
from medtl.settings.comparison import CompareSettings

_PLANS = {
    "grid": grid,
    "zhang2023": zhang2023,
    "alzubaidi2020": alzubaidi2020,
    "kim2022": kim2022,
    "kandel2020": kandel2020,
    "boit2019": boit2019,
    "trinh2021": trinh2021,
    "dai2021": dai2021,
}


def plan_of(settings: CompareSettings) -> Plan:
    """The plan of the study that the settings name.

    Raises:
        ParameterError: a parameter is wrong, or is one that the study itself decides.
    """
    plan = _PLANS[settings.study](settings)
    if note := _rates_note(plan):
        plan = dataclasses.replace(plan, notes=(*plan.notes, note))
    if len({cell.fraction for cell in plan.cells}) > 1 and "size" not in plan.pictures:
        plan = dataclasses.replace(plan, pictures=(*plan.pictures, "size"))
    return plan


def _rates_note(plan: Plan) -> str:
    """Returns a line on the learning rates, chosen or given; '' where no cell has one."""
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
    listed = {name: ", ".join(f"{rate:g}" for rate in rates) for name, rates in tried.items()}
    among = " or ".join(
        f"{rates} ({', '.join(name for name in listed if listed[name] == rates)})"
        for rates in dict.fromkeys(listed.values())
    )
    seeds = len({cell.seed for cell in plan.cells})
    most = seeds + max(map(len, tried.values())) - 1
    return (
        f"Ours: the learning rate of each arm is chosen among {among} by the validation AUROC, of "
        "equal ones by the validation loss. An arm is the cells that differ in their seeds "
        f"alone: the first seed chooses for all, {most} trainings for {seeds} "
        f"seed{'s' * (seeds > 1)} (rates, lr and seeds make it fewer). A solved head and a "
        "classical classifier have no learning rate."
    )


__all__ = ["PRETRAINED_ON", "Cell", "Plan", "arm", "cell_names", "plan_of"]
