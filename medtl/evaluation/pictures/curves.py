"""ROC and precision-recall curves, each class against the rest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import (
    MUTED,
    PAPER,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)
from medtl.evaluation.ranking import Ranking
from medtl.evaluation.truth import asked, asked_about, has_findings

MOST_INSIDE = 7  # curves whose legend has room among them


def roc_curves(labels: np.ndarray, probabilities: np.ndarray, per_class: pd.DataFrame) -> Figure:
    """Sensitivity against false positive rate; a dot is where the decisions lie.

    `labels` int [N] (of findings int8 [N, K]), `probabilities` [N, K]; `per_class` is the table of
    `Measures`, whose areas and intervals stand in the legend. With two classes only the second, the
    positive one, is drawn.
    """
    figure = sheet("ROC curve", _subtitle(labels, per_class), _width(per_class), height=5.6)
    axes = _unit_square(figure, "False positive rate (1 - specificity)", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    for index, row in _drawn_classes(labels, per_class):
        cases, positive = asked(labels, index)
        true, false = Ranking.of(positive, probabilities[cases, index]).curve()
        rate_true, rate_false = _from_zero(true / true[-1]), _from_zero(false / false[-1])
        axes.plot(rate_false, rate_true, **_line(index, row, "auroc"))
        _mark(axes, index, 1 - row["specificity"], row["sensitivity"])
    _key(axes, per_class, "lower right", "Area under the curve (95 % interval)")
    return finished(figure)


def precision_recall_curves(
    labels: np.ndarray, probabilities: np.ndarray, per_class: pd.DataFrame
) -> Figure:
    """Precision against recall; the dotted line of a class is its share of the cases.

    Arguments as in `roc_curves`.
    """
    subtitle, width = _subtitle(labels, per_class), _width(per_class)
    figure = sheet("Precision and recall", subtitle, width, height=5.6)
    axes = _unit_square(figure, "Recall (sensitivity)", "Precision (positive predictive value)")
    for index, row in _drawn_classes(labels, per_class):
        cases, positive = asked(labels, index)
        true, false = Ranking.of(positive, probabilities[cases, index]).curve()
        recall, precision = true / true[-1], true / (true + false)
        # A step: between two thresholds recall cannot be had at the better one's precision.
        axes.step(
            _from_zero(recall),
            np.append(precision[:1], precision),
            where="pre",
            **_line(index, row, "auprc"),
        )
        axes.axhline(
            np.mean(positive),
            color=colour(index),
            linewidth=1,
            alpha=0.7,
            linestyle=(0, (1, 3)),
        )
        _mark(axes, index, row["sensitivity"], row["precision"])
    _key(axes, per_class, "lower left", "Average precision (95 % interval)")
    return finished(figure)


def _drawn_classes(labels: np.ndarray, per_class: pd.DataFrame) -> Iterator[tuple[int, pd.Series]]:
    """The classes that have a curve: all that have an area; of two only the second."""
    for index in asked_about(labels, len(per_class)):
        row = per_class.iloc[index]
        if np.isfinite(row["auroc"]):
            yield index, row


def _width(per_class: pd.DataFrame) -> float:
    """Inches of the figure: with many curves the legend stands beside them."""
    return 7.0 if len(per_class) <= MOST_INSIDE else 10.6


def _key(axes: Axes, per_class: pd.DataFrame, place: str, title: str) -> None:
    key(axes, place, title)
    legend = axes.get_legend()
    if legend is not None and len(per_class) > MOST_INSIDE:
        legend.set_loc("upper left")
        legend.set_bbox_to_anchor((1.0, 1.0))


def _subtitle(labels: np.ndarray, per_class: pd.DataFrame) -> str:
    what = "each class against the rest"
    if has_findings(labels):
        what = "each finding where it is known"
    elif len(per_class) == 2:
        what = f"{per_class['class'][1]} against {per_class['class'][0]}"
    return f"{len(labels):,} cases, {what}; the dot is the operating point"


def _unit_square(figure: Figure, across: str, up: str) -> Axes:
    axes = plain(figure.subplots(), across, up)
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015))
    return axes


def _from_zero(values: np.ndarray) -> np.ndarray:
    return np.append(0.0, values)


def _line(index: int, row: pd.Series, metric: str) -> dict:
    (name,) = short([row["class"]])
    bounds = f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}"
    text = f"{row[metric]:.3f} ({bounds})  {name}, n = {row['cases']:,}"
    return {"color": colour(index), "linestyle": dash(index), "linewidth": 1.8, "label": text}


def _mark(axes: Axes, index: int, across: float, up: float) -> None:
    axes.plot(
        across,
        up,
        "o",
        color=colour(index),
        markeredgecolor=PAPER,
        markersize=8,
        markeredgewidth=1,
        clip_on=False,
        zorder=5,
    )
