"""A grid of the user's own: every combination of the given values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from medtl.comparison.design import (
    SERIES,
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

COMPARED = ("architecture", "weights", "transfer", "classifier", "cutoff", "optimizer", "fraction",
            "hidden")  # fmt: skip


@register_study
def grid(settings: CompareSettings) -> Plan:
    """Plans architectures x weights x transfers x cut-offs x optimizers x shares x seeds.

    By default it compares pretrained with random weights, each trained from the first, a middle
    or the last layer on. Each value is compared with the first of its list, all else being equal.
    """
    refuse_chosen(settings, "different", "same")
    cells = repeated(dict.fromkeys(_cells(settings)), fractions(settings), seeds(settings))
    pairs: list[tuple[Cell, Cell]] = []
    for name in COMPARED:
        values = list(dict.fromkeys(getattr(cell, name) for cell in cells))
        same = [other for other in (*COMPARED, "lr") if other != name]
        if name in ("cutoff", "optimizer"):
            same.remove("lr")  # the learning rate depends on them
        pairs += paired(cells, lambda cell: getattr(cell, name) == values[0], *same)  # noqa: B023
    depths = len({cell.cutoff for cell in cells}) > 1
    return Plan(
        "grid",
        "A grid of the user's own",
        "",
        "auroc",
        cells,
        tuple(pairs),
        ("convergence", "depth") if depths else ("convergence",),
        notes=("Each value is compared with the first of its list, all else being equal.",),
    )


def _cells(settings: CompareSettings) -> Iterator[Cell]:
    for architecture in architectures(settings, ("resnet50",), ("small_resnet",)):
        for start in weights(settings, "random", "auto"):
            for cutoff in spelled_out(settings, architecture) or _three(settings, architecture):
                for transfer in settings.listed("transfer") or ("finetune",):
                    yield from _trained(settings, architecture, start, cutoff, transfer)


def _trained(
    settings: CompareSettings, architecture: str, start: str, cutoff: str, transfer: str
) -> Iterator[Cell]:
    series = SERIES.get(start, start)
    if transfer == "hybrid":
        for classifier in settings.listed("classifier") or ("logistic",):
            yield Cell.hybrid(series, architecture, classifier, weights=start, cutoff=cutoff)
        return
    for cell in finetuned(settings, series, architecture, start, cutoff):
        yield dataclasses.replace(cell, transfer=transfer)


def _three(settings: CompareSettings, architecture: str) -> tuple[str, str, str]:
    names = blocks(settings, architecture)
    return names[0], names[len(names) // 2], names[-1]
