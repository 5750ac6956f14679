"""Alzubaidi et al. 2020: same-domain against different-domain pretraining.

The notes of the plan list what the paper states and what this project chose.
"""

from __future__ import annotations

import dataclasses

from medtl.comparison.design import (
    PRETRAINED_ON,
    SMALLER_SIZE,
    Plan,
    architectures,
    finetuned,
    fractions,
    is_embedded,
    paired,
    refuse_chosen,
    repeated,
    several_seeds,
)
from medtl.comparison.study_registry import register_study
from medtl.data.manifest import EMBEDDED
from medtl.errors import ParameterError
from medtl.settings.comparison import CompareSettings

SCRATCH, DIFFERENT = "scratch", "different domain"


@register_study
def alzubaidi2020(settings: CompareSettings) -> Plan:
    """Plans pretraining on the same domain against another (Appl. Sci. 10(13):4523)."""
    refuse_chosen(settings, "transfer", "classifier", "weights", "cutoffs")
    same = settings.same or ("phantoms-source" if settings.data == "phantoms" else "")
    if not same:
        raise ParameterError(
            "same", "''", "a data set like yours to pretrain on, or weights made from one"
        )
    starts = {SCRATCH: "random", DIFFERENT: settings.different, "same domain": same}
    small = is_embedded(settings)
    cells = repeated(
        (
            dataclasses.replace(cell, weights=_source(cell.weights))
            for architecture in architectures(settings, ("parallel_cnn",), ("parallel_cnn",))
            for series, start in starts.items()
            for cell in finetuned(settings, series, architecture, start, "all")
        ),
        fractions(settings, *((0.1, 0.25, 1.0) if small else (0.1, 0.25, 0.5, 1.0))),
        several_seeds(settings, 0, 1),
    )
    same_setting = ("fraction", "architecture", "optimizer", "hidden")
    against_scratch = paired(cells, lambda cell: cell.series == SCRATCH, *same_setting)
    against_other_domain = paired(
        [cell for cell in cells if cell.series != SCRATCH],
        lambda cell: cell.series == DIFFERENT,
        *same_setting,
    )
    return Plan(
        "alzubaidi2020",
        "Same-domain against different-domain pretraining, by size of the training set",
        "Alzubaidi et al. 2020, Applied Sciences 10(13):4523",
        "f1",
        cells,
        against_scratch + against_other_domain,
        ("size",),
        image_size=SMALLER_SIZE if small else 0,
        notes=(
            "Known: F1 on foot ulcers of 86.6 % from scratch, 89.4 % after pretraining on another "
            "domain, 97.6 % on the same domain, with few target images.",
            "Ours: the layer table of the network, the sizes, five seeds on the user's images, the "
            "optimizer; of the larger source as many training images are drawn as the smaller has.",
        ),
        equal_sources=True,
    )


def _source(start: str) -> str:
    """Returns weights unchanged, and a data set as weights to pretrain on it."""
    is_weights = start in ("random", "imagenet") or start.endswith((".safetensors", ".pth", ".pt"))
    if start not in EMBEDDED and (is_weights or start.startswith(("models:/", "runs:/"))):
        return start
    return f"{PRETRAINED_ON}{start}"
