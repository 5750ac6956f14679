"""Dai, Gao & Liu 2021 (TransMed): several images of a case, joined by a transformer.

The notes of the plan list what the paper states and what this project chose.
"""

from __future__ import annotations

import dataclasses

from medtl.comparison.design import (
    PRETRAINED_ON,
    Plan,
    architectures,
    finetuned,
    fractions,
    is_embedded,
    paired,
    refuse_chosen,
    repeated,
    seeds,
    spelled_out,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.data.manifest import read_table
from medtl.data.sources.phantoms.datasets import CASES, PRETRAINING
from medtl.data.sources.phantoms.head_mr import MODALITIES
from medtl.errors import ParameterError
from medtl.settings.comparison import CompareSettings

SMALL_CASE_SIZE = 64  # pixels, of embedded cases: TransMed's patches are a quarter as wide

# Two of ResNet-18's four stages see a single pixel of such a patch, and a step of it takes a
# processor core about 30 times as long as one of `small_resnet`.
SMALL_CASE_NETWORKS = ("late_fusion:small_resnet", "transmed:small_resnet")

SMALL_NOTE = (
    f"Embedded cases: unless others are named, small_resnet pretrained on {PRETRAINING} reads the "
    "images of both networks; what comes after it begins with random weights."
)


@register_study
def dai2021(settings: CompareSettings) -> Plan:
    """Plans TransMed against late fusion and each image alone (Diagnostics 11(8):1384)."""
    refuse_chosen(settings, "transfer", "classifier", "different", "same")
    embedded = is_embedded(settings)
    modalities: tuple[str, ...] = MODALITIES
    if not embedded:
        modalities = read_table(settings.data, settings.reading).modalities
    if len(modalities) < 2:
        raise ParameterError(
            "data", settings.data, "cases of several images: a CSV with case and modality"
        )
    shown = {"all modalities": "", **{f"{name} alone": name for name in modalities}}
    cells = repeated(
        (
            dataclasses.replace(cell, modality=modality)
            for architecture in architectures(
                settings, ("late_fusion", "transmed"), SMALL_CASE_NETWORKS
            )
            for start in weights(settings, f"{PRETRAINED_ON}{PRETRAINING}" if embedded else "auto")
            for series, modality in shown.items()
            for cutoff in spelled_out(settings, architecture) or ("all",)
            for cell in finetuned(settings, series, architecture, start, cutoff)
        ),
        fractions(settings),
        seeds(settings),
    )
    same = ("fraction", "weights", "cutoff", "optimizer", "hidden")
    alone = paired(cells, lambda cell: not cell.modality, "architecture", *same)
    first = cells[0].architecture
    joined = [cell for cell in cells if not cell.modality]
    return Plan(
        "dai2021",
        "Several images of a case: a transformer over them, late fusion, and each image alone",
        "Dai, Gao & Liu 2021, Diagnostics 11(8):1384",
        "accuracy",
        cells,
        (*paired(joined, lambda cell: cell.architecture == first, *same), *alone),
        ("convergence",),
        image_size=SMALL_CASE_SIZE if embedded else 0,
        data=CASES if embedded else "",
        notes=(
            "Known: a CNN reads the patches of all modalities, a transformer relates them; 10.1 "
            "and 1.9 points more mean accuracy than CNNs on parotid tumours and knee injuries.",
            "Ours: late fusion as the baseline, each modality alone, optimizer and learning rate.",
            *((SMALL_NOTE,) if embedded else ()),
        ),
    )
