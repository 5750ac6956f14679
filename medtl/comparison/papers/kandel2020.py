"""Kandel & Castelli 2020: how deeply to fine-tune."""

from __future__ import annotations

from medtl.comparison.design import (
    SOURCES,
    Plan,
    architectures,
    blocks,
    fractions,
    paired,
    refuse_chosen,
    repeated,
    several_seeds,
    spelled_out,
    weights,
)
from medtl.comparison.papers.kim2022 import _block_wise
from medtl.settings.comparison import CompareSettings


def kandel2020(settings: CompareSettings) -> Plan:
    """Kandel & Castelli 2020, how deeply to fine-tune, doi:10.3390/app10103359."""
    refuse_chosen(settings, "transfer", "classifier", *SOURCES)
    cells = repeated(
        (
            cell
            for architecture in architectures(settings, ("vgg16", "vgg19", "inception_v3"))
            for start in weights(settings, "auto")
            for cutoff in spelled_out(settings, architecture) or blocks(settings, architecture)
            for cell in _block_wise(settings, architecture, start, cutoff)
        ),
        fractions(settings),
        several_seeds(settings),
    )
    return Plan(
        "kandel2020",
        "How deeply to fine-tune: block by block",
        "Kandel & Castelli 2020, Applied Sciences 10(10):3359",
        "auroc",
        cells,
        paired(
            cells,
            lambda cell: cell.cutoff == "all",
            "fraction",
            "architecture",
            "weights",
            "optimizer",
            "hidden",
        ),
        ("depth",),
        notes=(
            "Known: block-wise fine-tuning of three architectures; fine-tuning everything is not "
            "always best.",
            "Ours: which architectures, where a block begins, optimizers; five seeds on the user's "
            "images.",
        ),
    )
