"""The baselines of a study in its report: a sentence, and tables of scores and gains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from medtl.evaluation.model_comparison import Comparison
from medtl.reporting import html
from medtl.reporting.comparison_summary import METRICS
from medtl.reporting.plots import training_comparison

SAME = 0.0005  # of the score: below that no difference is shown
NAMED = 6  # arms that are named in the sentence; all stand in the table


def against_baselines(comparison: Comparison) -> str:
    """Formats how many arms are above, and which below, the baseline of their own backbone.

    '' where the study has no baselines.
    """
    gains, notes = comparison.beside.gains, comparison.beside.notes
    sentences = [f"{note[:1].upper()}{note[1:]}." for note in notes]
    if len(gains):
        above = int((gains["low"] > 0).sum())
        first = (
            f"{above} of {_many(len(gains))} {'is' if above == 1 else 'are'} above logistic "
            f"regression on the frozen features of the same backbone in test "
            f"{METRICS[comparison.metric]}, with a 95 % interval off zero."
        )
        sentences = [first, *_below(gains), *sentences]
    return " ".join(sentences)


def baseline_tables(comparison: Comparison, metrics: Sequence[str]) -> Iterator[str]:
    """Yields the scores of the baselines, and the gain of each arm, as a picture and tables."""
    found, metric = comparison.beside, METRICS[comparison.metric]
    if found.notes:
        yield html.listing(found.notes)
    if not found.references:
        return
    rows = [
        html.row(each.name, [str(found.scores[each.name][name]) for name in metrics])
        for each in found.references
    ]
    caption = (
        "Classifiers without fine-tuning, on the same splits: logistic regression on the features "
        "before the head of each frozen backbone, and on the brightness of 8 x 8 fields; a random "
        "forest on what the files give away (size, shape, mode, format, bytes). They are no cells."
    )
    yield html.table(caption, ["baseline", *(f"test {METRICS[name]}" for name in metrics)], rows)
    gains = found.gains
    if gains.empty:
        return
    drawn = gains.assign(name=gains["arm"], value=gains["difference"])
    title = f"Gain in test {metric} over the frozen features"
    figure = training_comparison.values_with_intervals(
        drawn, title, f"Gain in test {metric}", zero=True
    )
    yield html.picture(figure, f"{title} of the same backbone, with 95 % intervals")
    rows = [
        html.row(
            each.arm,
            [
                each.baseline,
                f"{each.difference:+.3f}",
                f"{each.low:+.3f} to {each.high:+.3f}",
                f"{each.confidence:.3f}",
                each.seeds,
            ],
        )
        for each in gains.itertuples()
    ]
    head = ["cell", "over", f"test {metric}", "95 % interval", "confidence", "seeds"]
    yield html.table("Gain over the baseline of the same backbone and share.", head, rows)


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
