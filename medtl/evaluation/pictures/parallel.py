"""All trials of a search at a glance: a line a trial, an upright axis a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import (
    BAD,
    INK,
    LABEL,
    MUTED,
    PAPER,
    SMALL,
    finished,
    sheet,
    short,
)

RISING = LinearSegmentedColormap.from_list("rising", ["#CFE3F1", "#56A3D1", "#0072B2", "#00304F"])
# A parameter whose values span more than this is one of orders of magnitude.
LOGARITHMIC_SPAN = 30.0
NAMES_AT_MOST = 22


@dataclass(frozen=True)
class _Upright:
    """One axis: `places` [N] between 0 and 1, and tick `marks` as (place, text)."""

    places: np.ndarray
    marks: list[tuple[float, str]]


def parallel_coordinates(trials: pd.DataFrame, parameters: Sequence[str], metric: str) -> Figure:
    """The complete trials as lines over `parameters`, darker for a better score, the best apart.

    `trials` as in `medtl.evaluation.pictures.search`. Names stand in the order of their pandas
    categories, where they have one (cut-offs in forward order, the head on top), else sorted.
    Numbers that span more than a factor of thirty are on a logarithmic axis.
    """
    complete = trials[trials["state"] == "complete"].sort_values("score")
    figure = sheet(
        "Trials at a glance",
        f"{len(complete)} complete trials; darker is better, the best in orange",
        width=max(7.0, 2.2 + 1.75 * (len(parameters) + 1)),
        height=5.4,
    )
    axes = figure.subplots()
    axes.set_axis_off()
    if complete.empty:
        return finished(figure)
    uprights = [_upright(complete[name]) for name in parameters] + [_upright(complete["score"])]
    for across, (name, each) in enumerate(zip([*parameters, metric], uprights, strict=True)):
        _draw_upright(axes, across, short([name])[0], each)
    heights = np.stack([each.places for each in uprights], axis=1)
    lines = [np.column_stack([np.arange(len(uprights)), row]) for row in heights]
    score = complete["score"].to_numpy(dtype=float)
    shades = ScalarMappable(Normalize(score.min(), score.max()), RISING).to_rgba(score)
    axes.add_collection(LineCollection(lines[:-1], colors=shades[:-1], linewidths=1.5, alpha=0.9))
    axes.add_collection(LineCollection(lines[-1:], colors=BAD, linewidths=3))
    axes.set(xlim=(-0.45, len(uprights) - 0.65), ylim=(-0.04, 1.1))
    return finished(figure)


def _draw_upright(axes: Axes, across: int, name: str, each: _Upright) -> None:
    axes.plot([across, across], [0, 1], color=MUTED, linewidth=1, zorder=3)
    axes.text(across, 1.06, name, ha="center", size=LABEL, weight="bold", color=INK)
    for place, text in each.marks:
        axes.annotate(
            text,
            (across, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            size=SMALL,
            color=INK,
            zorder=4,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )


def _upright(values: pd.Series) -> _Upright:
    """Puts the values of one parameter on an axis."""
    if not pd.api.types.is_numeric_dtype(values):
        return _named(values)
    numbers = values.to_numpy(dtype=float)
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return _Upright(np.full(len(numbers), 0.5), [(0.5, f"{low:.4g}")])
    if low > 0 and high / low > LOGARITHMIC_SPAN:
        low, high = np.log10(low), np.log10(high)
        numbers = np.log10(numbers)
        ticks = np.arange(np.ceil(low), np.floor(high) + 1)
        texts = [f"1e{tick:.0f}" for tick in ticks]
    else:
        ticks = np.linspace(low, high, 6)
        texts = [f"{tick:.3g}" for tick in ticks]
    marks = [
        (float((tick - low) / (high - low)), text) for tick, text in zip(ticks, texts, strict=True)
    ]
    return _Upright((numbers - low) / (high - low), marks)


def _named(values: pd.Series) -> _Upright:
    """Puts names on an axis, evenly, in the order of their categories."""
    category = values.astype("category").cat.remove_unused_categories().cat
    names = short([str(name) for name in category.categories], 20)
    span = max(1, len(names) - 1)
    places = category.codes.to_numpy() / span if len(names) > 1 else np.full(len(values), 0.5)
    every = -(-len(names) // NAMES_AT_MOST)
    marks = [
        (index / span if len(names) > 1 else 0.5, names[index])
        for index in range((len(names) - 1) % every, len(names), every)
    ]
    return _Upright(places, marks)
