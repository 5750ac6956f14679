"""Kandel & Castelli 2020: how deeply to fine-tune."""

from __future__ import annotations

from medtl.comparison.design import (
    SERIES,
    SMALL_RATE,
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
    several_seeds,
    spelled_out,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.settings.comparison import CompareSettings


@register_study
def kandel2020(settings: CompareSettings) -> Plan:
    """Plans fine-tuning block by block (Kandel & Castelli 2020, doi:10.3390/app10103359)."""
    refuse_chosen(settings, "transfer", "classifier", *SOURCES)
    cells = repeated(
        (
            cell
            for architecture in architectures(settings, ("vgg16", "vgg19", "inception_v3"))
            for start in weights(settings, "auto")
            for cutoff in spelled_out(settings, architecture) or blocks(settings, architecture)
            for cell in _from_cutoff(settings, architecture, start, cutoff)
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


def _from_cutoff(
    settings: CompareSettings, architecture: str, start: str, cutoff: str
) -> list[Cell]:
    """Returns the cells trained from a cut-off on; at one learning rate on embedded images."""
    cells = finetuned(settings, SERIES.get(start, start), architecture, start, cutoff)
    return at_rate(settings, SMALL_RATE, cells) if is_embedded(settings) else cells
