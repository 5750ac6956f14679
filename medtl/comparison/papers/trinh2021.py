"""Trinh & Nguyen 2021: two backbones joined, against each alone."""

from __future__ import annotations

import dataclasses

from medtl.comparison.design import (
    SERIES,
    SMALL_RATE,
    SMALLER_SIZE,
    SOURCES,
    Cell,
    Plan,
    architectures,
    at_rate,
    blocks,
    finetuned,
    fractions,
    is_embedded,
    paired,
    refuse_chosen,
    repeated,
    seeds,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.errors import ParameterError
from medtl.networks.registry import find
from medtl.settings.comparison import CompareSettings

PUBLISHED_RATE = 1e-4


@register_study
def trinh2021(settings: CompareSettings) -> Plan:
    """Plans two joined backbones against each alone (Trinh & Nguyen 2021)."""
    refuse_chosen(settings, "transfer", "classifier", "cutoffs", *SOURCES)
    halves = architectures(settings, ("densenet121", "resnet101"))
    if len(halves) != 2:
        raise ParameterError("architecture", settings.architecture, "two for study=trinh2021")
    joined = f"dual:{'+'.join(halves)}"
    cells = repeated(
        (
            dataclasses.replace(cell, schedule="two_stage")
            for architecture in (*halves, joined)
            for start in weights(settings, "auto")
            for cell in _second_stage(settings, architecture, start)
        ),
        fractions(settings),
        seeds(settings),
    )
    same = ("fraction", "weights", "optimizer", "hidden")
    pairs = [
        pair
        for half in halves
        for pair in paired(
            [cell for cell in cells if cell.architecture in (half, joined)],
            lambda cell: cell.architecture != joined,
            *same,
        )
    ]
    return Plan(
        "trinh2021",
        "Two backbones joined, against each alone",
        "Trinh & Nguyen 2021, DenseNet-121 and ResNet-101 on eight classes of the GI tract",
        "f1",
        cells,
        tuple(pairs),
        ("convergence",),
        image_size=SMALLER_SIZE if is_embedded(settings) else 0,
        notes=(
            "Known: each feature map through a 3x3 convolution to 1,024 channels, the two added; "
            "the head first, then all but the first part, by RMSprop with 1e-4.",
            "Ours: the first part is the first third of the blocks; both stages have the same "
            "optimizer; the single backbones are trained alike.",
        ),
    )


def _second_stage(settings: CompareSettings, architecture: str, start: str) -> list[Cell]:
    """Returns cells trained after the first third of the blocks, for a dual of each half."""
    halves = find(architecture).parts.values() or [architecture]
    names = [blocks(settings, half) for half in halves]
    cutoff = "+".join(each[len(each) // 3] for each in names)
    cells = finetuned(settings, SERIES.get(start, start), architecture, start, cutoff, "rmsprop")
    return at_rate(settings, SMALL_RATE if is_embedded(settings) else PUBLISHED_RATE, cells)
