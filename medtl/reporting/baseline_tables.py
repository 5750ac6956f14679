"""Baselines in the report of a comparison: a sentence, and tables of scores and gains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from medtl.evaluation.metrics import metric_named
from medtl.evaluation.model_comparison import Comparison
from medtl.reporting.html import Illustrated, Picture, Row, Table
from medtl.reporting.plots import training_comparison
from medtl.reporting.rounding import confidence_text

SAME = 0.0005  # of the score: below that no difference is shown
NAMED = 6  # arms that are named in the sentence; all stand in the table


def against_baselines(comparison: Comparison) -> str:
    """Formats how many arms are above, and which below, the baseline of their own backbone.

    '' where the study has no baselines.
    """
    gains, notes = comparison.baselines.gains, comparison.baselines.notes
    sentences = [f"{note[:1].upper()}{note[1:]}." for note in notes]
    if len(gains):
        above = int((gains["low"] > 0).sum())
        first = (
            f"{above} of {_many(len(gains))} {'is' if above == 1 else 'are'} above logistic "
            f"regression on the frozen features of the same backbone in test "
            f"{metric_named(comparison.metric).label}, with a 95 % interval off zero."
        )
        sentences = [first, *_below(gains), *sentences]
    return " ".join(sentences)


@dataclass(frozen=True)
class BaselineSection:
    """Section of the report on baselines; None for a part without content."""

    notes: tuple[str, ...]
    scores: Table | None
    gains: Illustrated | None


def baseline_section(comparison: Comparison, metrics: Sequence[str]) -> BaselineSection | None:
    """Builds the section; None for a study without baselines."""
    baselines = comparison.baselines
    if not baselines.references and not baselines.notes:
        return None
    scores = _scores(comparison, metrics) if baselines.references else None
    gains = None if baselines.gains.empty else _gains(comparison)
    return BaselineSection(tuple(baselines.notes), scores, gains)


def _scores(comparison: Comparison, metrics: Sequence[str]) -> Table:
    baselines = comparison.baselines
    rows = [
        Row(each.name, [str(baselines.scores[each.name][name]) for name in metrics])
        for each in baselines.references
    ]
    caption = (
        "Classifiers without fine-tuning, on the same splits: logistic regression on the features "
        "before the head of each frozen backbone, and on the brightness of 8 x 8 fields; a random "
        "forest on file properties (size, shape, mode, format, bytes). They are not counted as "
        "cells."
    )
    return Table(
        caption, ["baseline", *(f"test {metric_named(name).label}" for name in metrics)], rows
    )


def _gains(comparison: Comparison) -> Illustrated:
    gains, metric = comparison.baselines.gains, metric_named(comparison.metric).label
    title = f"Gain in test {metric} over the frozen features"
    figure = training_comparison.values_with_intervals(
        gains.assign(name=gains["arm"], value=gains["difference"]),
        title,
        f"Gain in test {metric}",
        zero=True,
    )
    rows = [
        Row(
            each.arm,
            [
                _over(each.baseline),
                f"{each.difference:+.3f}",
                f"{each.low:+.3f} to {each.high:+.3f}",
                confidence_text(each.confidence),
                each.seeds,
            ],
        )
        for each in gains.itertuples()
    ]
    head = ["cell", "over", f"test {metric}", "95 % interval", "confidence", "seeds"]
    return Illustrated(
        Picture.of(figure, f"{title} of the same backbone, with 95 % intervals"),
        Table("Gain over the baseline of the same backbone and share.", head, rows),
    )


def _over(names: str) -> str:
    """Shortens names of baselines that differ only in their seed.

    >>> _over("baseline: frozen features, seed 0; baseline: frozen features, seed 1")
    'frozen features'
    """
    plain = (re.sub(r", seed \d+$", "", name) for name in names.split("; "))
    return "; ".join(dict.fromkeys(name.removeprefix("baseline: ") for name in plain))


def _below(gains: pd.DataFrame) -> list[str]:
    below = gains[gains["difference"] <= -SAME].sort_values("difference")
    if below.empty:
        return []
    named = [
        f"“{each.arm}” by {-each.difference:.3f} ({-each.high:.3f} to {-each.low:.3f})"
        for each in below.head(NAMED).itertuples()
    ]
    more = f"; {len(below) - NAMED} more in the table" if len(below) > NAMED else ""
    verb, sure = "is" if len(below) == 1 else "are", int((below["high"] < 0).sum())
    return [
        f"{len(below)} {verb} below it, {sure} with an interval off zero: {'; '.join(named)}{more}."
    ]


def _many(count: int) -> str:
    return f"{count} {'arm' if count == 1 else 'arms'}"
