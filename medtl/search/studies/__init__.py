"""Studies: which trainings the question of a paper, or of the user, consists of."""

from __future__ import annotations

import dataclasses

from medtl.search.studies.cases import dai2021
from medtl.search.studies.cells import PRETRAINED_ON, Cell, Plan, arm, cell_names
from medtl.search.studies.grid import grid
from medtl.search.studies.kinds import boit2019, kandel2020, kim2022, trinh2021
from medtl.search.studies.sources import alzubaidi2020, zhang2023
from medtl.settings import CompareSettings

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
    if len({cell.fraction for cell in plan.cells}) > 1 and "size" not in plan.pictures:
        plan = dataclasses.replace(plan, pictures=(*plan.pictures, "size"))
    return plan


__all__ = ["PRETRAINED_ON", "Cell", "Plan", "arm", "cell_names", "plan_of"]
