"""Plots of a search: history, importances, parallel coordinates, cut-offs.

A table of trials has a row a trial: `number`, `state` (`complete`, `pruned` or `failed`), `score`
(the last one of a pruned trial, NaN if there is none) and a column a parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtl.reporting.plots.style import (
    BAD,
    GOOD,
    INK,
    LABEL,
    MUTED,
    PAPER,
    SMALL,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)


def search_history(trials: pd.DataFrame, metric: str) -> Figure:
    """Draws the score of each trial in order, the best so far, and pruned and failed trials."""
    complete = trials[trials["state"] == "complete"].sort_values("number")
    pruned = trials[trials["state"] == "pruned"]
    failed = trials[trials["state"] == "failed"]
    parts = [f"{len(complete)} complete", f"{len(pruned)} pruned"]
    parts += [f"{len(failed)} failed"] if len(failed) else []
    figure = sheet("Search history", f"{len(trials)} trials: {', '.join(parts)}")
    axes = plain(figure.subplots(), "Trial", metric)
    axes.plot(
        pruned["number"],
        pruned["score"],
        "o",
        markersize=6,
        markerfacecolor="none",
        color=MUTED,
        label="pruned, at its last epoch" if len(pruned) else "",
    )
    axes.plot(
        complete["number"], complete["score"], "o", markersize=6.5, color=GOOD, label="complete"
    )
    if len(complete):
        best = complete["score"].cummax()
        numbers = np.append(complete["number"], trials["number"].max())
        axes.step(
            numbers,
            np.append(best, best.iloc[-1]),
            where="post",
            color=BAD,
            linewidth=1.6,
            label="best so far",
            zorder=1,
        )
        top = complete.loc[complete["score"].idxmax()]
        axes.annotate(
            f"trial {top['number']}: {top['score']:.4f}",
            (top["number"], top["score"]),
            (0, 9),
            textcoords="offset points",
            ha="center",
            size=9,
            weight="bold",
            color=BAD,
        )
    if len(failed):
        floor = axes.get_ylim()[0]
        axes.plot(
            failed["number"],
            np.full(len(failed), floor),
            "x",
            markersize=7,
            color=INK,
            label="failed",
            clip_on=False,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.05, y=0.1)
    key(axes, "best")
    return finished(figure)


def hyperparameter_importances(importances: Mapping[str, float], metric: str) -> Figure:
    """Draws the share of the variance of scores that each parameter explains, the largest on top.

    `importances` maps a parameter to its share, 0 to 1 (such as fANOVA, Hutter et al. 2014).
    """
    ranked = sorted(importances.items(), key=lambda pair: pair[1])
    figure = sheet(
        "Importance of the parameters",
        f"share of the variance of {metric} that a parameter explains",
        height=max(2.4, 1.6 + 0.42 * len(ranked)),
    )
    axes = plain(figure.subplots(), "Importance", "")
    axes.grid(visible=False, axis="y")
    bars = axes.barh(
        short([name for name, _ in ranked]), [share for _, share in ranked], height=0.62, color=GOOD
    )
    axes.bar_label(bars, fmt="%.2f", padding=4, size=9, color=INK)
    axes.tick_params(axis="y", labelsize=SMALL + 1, labelcolor=INK)
    axes.set_xlim(0, 1.1 * max([share for _, share in ranked], default=1.0) or 1.0)
    return finished(figure)


RISING = LinearSegmentedColormap.from_list("rising", ["#CFE3F1", "#56A3D1", "#0072B2", "#00304F"])
LOGARITHMIC = ("lr", "learning_rate", "weight_decay")  # searched on a logarithmic scale
LOGARITHMIC_SPAN = 30.0  # ratio of the largest to the smallest value of any other parameter
NAMES_AT_MOST = 22
TICKS = 6  # of an axis of numbers


@dataclass(frozen=True)
class _Upright:
    """Vertical axis: `places` [N] between 0 and 1, and tick `marks` as (place, text)."""

    places: np.ndarray
    marks: list[tuple[float, str]]


def parallel_coordinates(trials: pd.DataFrame, parameters: Sequence[str], metric: str) -> Figure:
    """Draws complete trials as lines over `parameters`, darker for a better score.

    Names are in the order of their pandas categories (cut-offs in forward order, the head on top),
    else sorted. Learning rates, and numbers that span more than a factor of thirty, have a
    logarithmic axis.
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
    uprights = [
        _upright(complete[name], logarithmic=name in LOGARITHMIC) for name in parameters
    ] + [_upright(complete["score"])]
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


def _upright(values: pd.Series, logarithmic: bool = False) -> _Upright:
    """Places the values of one parameter on an axis."""
    if not pd.api.types.is_numeric_dtype(values):
        return _named(values)
    numbers = values.to_numpy(dtype=float)
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return _Upright(np.full(len(numbers), 0.5), [(0.5, f"{low:.4g}")])
    if low > 0 and (logarithmic or high / low > LOGARITHMIC_SPAN):
        ticks = np.geomspace(low, high, TICKS)
        low, high, numbers = math.log10(low), math.log10(high), np.log10(numbers)
        places = (np.log10(ticks) - low) / (high - low)
        texts = [f"{tick:.2g}" for tick in ticks]
    else:
        ticks = np.linspace(low, high, TICKS)
        places = (ticks - low) / (high - low)
        texts = [f"{tick:.3g}" for tick in ticks]
    marks = list(zip(places.tolist(), texts, strict=True))
    return _Upright((numbers - low) / (high - low), marks)


def _named(values: pd.Series) -> _Upright:
    """Places names evenly on an axis, in the order of their categories."""
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


LABELS_AT_MOST = 32
FROZEN = "all layers before the cut-off are frozen; the best cut-off of each curve is ringed"
PROBED = (
    "no layer is trained, so the best layer here (ringed) can differ from the best cut-off of the "
    "search"
)


def score_against_cutoff(
    curves: Mapping[str, pd.DataFrame], order: Sequence[str], metric: str
) -> Figure:
    """Draws a curve a name over the cut-offs in forward order, and rings the best of each.

    `order` names the cut-offs from the first layer to the head. A table of `curves` has the columns
    `cutoff`, `score` and optionally `low` and `high`, drawn as bars. A cut-off may be missing;
    several rows of one (trials, repeats) are dots, and the line passes through the best.
    """
    title = f"{metric[:1].upper()}{metric[1:]} against the cut-off"
    return _over_layers(curves, order, metric, title, FROZEN, "Cut-off: the first trained layer")


def layer_probe(curve: pd.DataFrame) -> Figure:
    """Draws the cross-validated AUROC of a linear classifier on the features at each cut-off.

    `curve` has the columns `cutoff`, `score` and optionally `low` and `high`, in forward order.
    """
    title = "Linear probe: AUROC of the frozen features at each cut-off"
    axis = "Cut-off whose incoming features are classified"
    curves, order = {"linear probe": curve}, curve["cutoff"].tolist()
    return _over_layers(curves, order, "AUROC by cross-validation", title, PROBED, axis)


def _over_layers(
    curves: Mapping[str, pd.DataFrame],
    order: Sequence[str],
    metric: str,
    title: str,
    subtitle: str,
    axis: str,
) -> Figure:
    names = short(order, 42)
    figure = sheet(
        title,
        subtitle,
        width=min(max(7.0, 3.0 + 0.26 * len(order)), 13.0),
        height=4.4 + 0.055 * max(map(len, names)),
    )
    axes = plain(figure.subplots(), axis, metric)
    place = {cutoff: index for index, cutoff in enumerate(order)}
    for index, (name, table) in enumerate(curves.items()):
        shade = colour(index)
        best = table.sort_values("score").groupby("cutoff", observed=True).tail(1)
        best = best.assign(place=best["cutoff"].map(place)).sort_values("place")
        if len(best) < len(table):
            every = table["cutoff"].map(place).astype(float)
            axes.plot(
                every, table["score"], "o", color=shade, markersize=4, alpha=0.35, linewidth=0
            )
        axes.plot(
            best["place"],
            best["score"],
            marker="o",
            markersize=5 if len(order) <= LABELS_AT_MOST else 3,
            linewidth=1.8,
            linestyle=dash(index),
            label=name,
            color=shade,
        )
        if {"low", "high"} <= set(best.columns):
            bars = np.abs(best[["low", "high"]].to_numpy().T - best["score"].to_numpy())
            axes.errorbar(best["place"], best["score"], bars, fmt="none", elinewidth=1, color=shade)
        top = best.loc[best["score"].idxmax()]
        axes.plot(
            top["place"],
            top["score"],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgewidth=2,
            zorder=5,
            color=shade,
        )
        axes.annotate(
            f"{top['score']:.3f}",
            (top["place"], top["score"]),
            (0, 12),
            textcoords="offset points",
            ha="center",
            size=9,
            weight="bold",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
            zorder=6,
            color=shade,
        )
    # too many names would overlap; the last one, the head, is always shown
    every = -(-len(order) // LABELS_AT_MOST)
    shown = range((len(order) - 1) % every, len(order), every)
    axes.set_xticks(
        list(shown), [names[i] for i in shown], rotation=50, ha="right", rotation_mode="anchor"
    )
    axes.margins(x=0.06, y=0.16)
    axes.tick_params(axis="x", labelcolor=MUTED, pad=3)
    key(axes, "best")
    return finished(figure)
