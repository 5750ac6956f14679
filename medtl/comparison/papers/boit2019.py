"""Boit & Zeng 2019: the optimal cut-off layer."""

from __future__ import annotations

import dataclasses

from medtl.comparison.design import (
    SOURCES,
    Cell,
    Plan,
    architectures,
    blocks,
    finetuned,
    fractions,
    paired,
    refuse_chosen,
    repeated,
    seeds,
    spelled_out,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.settings.comparison import CompareSettings

HIDDEN = 256  # units of boit2019's dense layer
THREE = ("adam", "sgd", "rmsprop")


@register_study
def boit2019(settings: CompareSettings) -> Plan:
    """Plans feature extraction against fine-tuning, by three optimizers (Boit & Zeng 2019)."""
    refuse_chosen(settings, "transfer", "classifier", *SOURCES)
    changed = "light" if settings.augment == "none" else settings.augment
    cells: list[Cell] = []
    for architecture in architectures(settings, ("densenet121",), ("small_resnet",)):
        own = "conv5_block16_2_conv"
        if architecture != "densenet121" and not settings.cutoffs:
            own = blocks(settings, architecture)[-2]
        for start in weights(settings, "auto"):
            cutoffs = spelled_out(settings, architecture) or (own,)
            for series, cutoff, augment in (
                ("strategy 1", "head", "none"),
                *(("strategy 2", cutoff, changed) for cutoff in cutoffs),
            ):
                trained = finetuned(
                    settings, series, architecture, start, cutoff, *THREE, own_hidden=HIDDEN
                )
                cells += [dataclasses.replace(cell, augment=augment) for cell in trained]
    repeats = repeated(cells, fractions(settings), seeds(settings))
    same = ("fraction", "architecture", "weights", "optimizer")
    return Plan(
        "boit2019",
        "Feature extraction without, and fine-tuning with augmentation, by three optimizers",
        "Boit & Zeng 2019, Dakota State Annual Research Symposium 16",
        "accuracy",
        repeats,
        (
            *paired(repeats, lambda cell: cell.series == "strategy 1", *same, "hidden"),
            *paired(repeats, lambda cell: cell.hidden == 0, *same, "series", "cutoff"),
        ),
        ("convergence",),
        notes=(
            "Known: DenseNet-121 from ImageNet, a dense ReLU layer, then a sigmoid; strategy 1 is "
            "feature extraction without augmentation; strategy 2 fine-tunes with augmentation from "
            "the Keras layer conv5_block16_2_conv on; Adam, SGD, RMSprop.",
            f"Ours: the units of the dense layer ({HIDDEN}), which is trained by gradient in both "
            "strategies; a score for each class and a softmax (for two classes a sigmoid of their "
            "difference); the augmentation; another architecture is fine-tuned from its last block "
            "before the head.",
        ),
    )
