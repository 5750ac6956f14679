"""Kim et al. 2022: the kinds of transfer learning.

The notes of the plan list what the paper states and what this project chose.
"""

from __future__ import annotations

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
    several_seeds,
    spelled_out,
    weights,
)
from medtl.comparison.study_registry import register_study
from medtl.settings.comparison import CompareSettings
from medtl.settings.training import CLASSIFIERS


@register_study
def kim2022(settings: CompareSettings) -> Plan:
    """Plans the kinds of transfer against each other (Kim et al. 2022, BMC Med Imaging 22:69)."""
    refuse_chosen(settings, "transfer", *SOURCES)
    cells: list[Cell] = []
    for architecture in architectures(settings, ("resnet50",), ("small_resnet",)):
        for start in weights(settings, "auto"):
            cells += _kinds(settings, architecture, start)
        cells += finetuned(settings, "random initialisation", architecture, "random", "all")
    repeats = repeated(dict.fromkeys(cells), fractions(settings), several_seeds(settings))
    return Plan(
        "kim2022",
        "The kinds of transfer learning against each other",
        "Kim et al. 2022, BMC Medical Imaging 22:69",
        "auroc",
        repeats,
        paired(
            repeats, lambda cell: cell.series == "feature extractor", "fraction", "architecture"
        ),
        ("convergence",),
        notes=(
            "Known: the four kinds and their names; the advice to take a ResNet or an Inception "
            "as feature extractor, which saves cost without losing predictive power.",
            "Ours: fine-tuning begins after two thirds of the blocks unless cutoffs says where; "
            "optimizers; five seeds on the user's images.",
        ),
    )


def _kinds(settings: CompareSettings, architecture: str, start: str) -> list[Cell]:
    """Returns the cells of the four kinds of transfer from pretrained weights."""
    cells = finetuned(settings, "feature extractor", architecture, start, "head")
    for classifier in settings.listed("classifier") or CLASSIFIERS:
        series = f"feature extractor hybrid ({classifier})"
        cells.append(Cell.hybrid(series, architecture, classifier, weights=start))
    top = spelled_out(settings, architecture)
    if not top:
        names = blocks(settings, architecture)
        top = (names[2 * len(names) // 3],)
    for cutoff in top:
        cells += finetuned(settings, "fine-tuning", architecture, start, cutoff)
    return cells + finetuned(settings, "fine-tuning from scratch", architecture, start, "all")
