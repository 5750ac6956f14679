"""Plots that compare trainings: convergence, size, depth, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtl.reporting.plots.style import (
    GOOD,
    INK,
    MUTED,
    SMALL,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)


def convergence_curves(
    panels: Mapping[str, Mapping[str, pd.DataFrame]], column: str, metric: str
) -> Figure:
    """Draws `column` over the epochs: a panel an architecture, a curve a training.

    A table of `panels` has the columns `epoch` (from 1) and `column`.
    """
    across = min(2, len(panels))
    down = math.ceil(len(panels) / across)
    figure = sheet(
        "Convergence",
        f"{metric} after each epoch; the best epoch is chosen by validation AUROC",
        width=max(7.0, 4.2 * across + 1.4),  # room for the heading
        height=1.0 + 3.3 * down,
    )
    places = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, (title, curves) in zip(places, panels.items(), strict=False):
        plain(axes, "Epoch", metric)
        axes.set_title(title, size=SMALL + 1, color=INK, loc="left")
        for index, (name, history) in enumerate(curves.items()):
            axes.plot(
                history["epoch"],
                history[column],
                marker="o",
                markersize=3,
                linewidth=1.8,
                color=colour(index),
                linestyle=dash(index),
                label=short([name], 44)[0],
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        key(axes, "best")
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    return finished(figure)


def score_against_size(curves: Mapping[str, pd.DataFrame], metric: str) -> Figure:
    """Draws a curve a name over the share of the training images, with intervals as bars.

    A table has the columns `fraction` (above 0, at most 1), `score`, `low` and `high`.
    """
    figure = sheet(
        f"{metric[:1].upper()}{metric[1:]} against the size of the training set",
        "means over seeds; bars are 95 % intervals on the test split",
    )
    axes = plain(figure.subplots(), "Share of the training images (%)", metric)
    shares: set[float] = set()
    for index, (name, table) in enumerate(curves.items()):
        table = table.sort_values("fraction")
        shares |= set(table["fraction"])
        # side by side, so that bars do not cover each other
        place = 100 * table["fraction"] * 1.02 ** (index - (len(curves) - 1) / 2)
        _with_bars(axes, place, table, name, index)
    axes.set_xscale("log")
    ticks = sorted(100 * share for share in shares)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    key(axes, "best")
    return finished(figure)


def score_against_depth(curves: Mapping[str, pd.DataFrame], metric: str) -> Figure:
    """Draws a curve an architecture over the depth of fine-tuning, from 0 to 1 of its cut-offs.

    A table has the columns `cutoff`, `score`, `low`, `high`, in forward order.
    """
    figure = sheet(
        f"{metric[:1].upper()}{metric[1:]} against the depth of fine-tuning",
        "bars are 95 % intervals on the test split; the best of each curve is ringed",
    )
    axes = plain(figure.subplots(), "Cut-off, from the first layer to the head", metric)
    for index, (name, table) in enumerate(curves.items()):
        place = np.linspace(0, 1, len(table))
        _with_bars(axes, place, table, name, index)
        best = int(table["score"].to_numpy().argmax())
        axes.plot(
            place[best],
            table["score"].iloc[best],
            "o",
            color=colour(index),
            markersize=12,
            markerfacecolor="none",
            markeredgewidth=2,
        )
    axes.set_xticks([0, 1], ["every layer is trained", "the head alone"])
    key(axes, "best")
    return finished(figure)


def _with_bars(axes: Axes, place: np.ndarray, table: pd.DataFrame, name: str, index: int) -> None:
    """Draws the curve of a table with `score`, `low` and `high`, and a bar for each interval."""
    axes.errorbar(
        place,
        table["score"],
        np.abs(table[["low", "high"]].to_numpy().T - table["score"].to_numpy()),
        marker="o",
        markersize=5,
        linewidth=1.8,
        elinewidth=1,
        color=colour(index),
        linestyle=dash(index),
        label=short([name], 44)[0],
    )


def values_with_intervals(table: pd.DataFrame, title: str, what: str, zero: bool) -> Figure:
    """Draws a dot with its interval for each row: `name`, `value`, `low`, `high`, the first on top.

    `zero` adds a line at 0, where there is no difference.
    """
    figure = sheet(
        title,
        "bars are 95 % intervals on the test split",
        width=8.0,
        height=1.5 + 0.28 * max(len(table), 2),
    )
    axes = plain(figure.subplots(), what, "")
    axes.grid(visible=False, axis="y")
    places = np.arange(len(table))
    values = table["value"].to_numpy()
    bars = np.abs(table[["low", "high"]].to_numpy().T - values)
    axes.errorbar(values, places, xerr=bars, fmt="o", markersize=5, elinewidth=1.4, color=GOOD)
    if zero:
        axes.axvline(0, color=MUTED, linewidth=1)
    axes.set_yticks(places, short(table["name"].tolist(), 70))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    return finished(figure)


def score_against_cost(table: pd.DataFrame, metric: str) -> Figure:
    """Plots one dot per row over its trained compute: `score`, `trained_flops`, `series`."""
    figure = sheet(
        f"{metric[:1].upper()}{metric[1:]} against compute",
        "of the trained part, for one image in the forward pass; classical classifiers have none",
    )
    axes = plain(
        figure.subplots(), "Trained compute in MFLOP (above 1 on a logarithmic scale)", metric
    )
    compute = table["trained_flops"] / 1e6
    for index, (name, rows) in enumerate(table.groupby("series", sort=False)):
        axes.scatter(
            compute[rows.index],
            rows["score"],
            s=36,
            color=colour(index),
            marker="os^Dv"[index // 8 % 5],
            label=short([name], 44)[0],
        )
    # linear below one MFLOP, where classifiers without trained layers are at 0
    axes.set_xscale("symlog", linthresh=1.0)
    ticks = _compute_ticks(float(compute.max()))
    axes.set_xlim(-0.2, 1.1 * ticks[-1])
    axes.margins(y=0.1)
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.minorticks_off()
    key(axes, "best")
    return finished(figure)


def _compute_ticks(most: float) -> list[float]:
    """Returns ticks from 0 over 1 to `most` or the next one: decades, and 3 of each of few.

    >>> _compute_ticks(3.5), _compute_ticks(4000.0)
    ([0.0, 1.0, 3.0, 10.0], [0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0])
    """
    decades = max(1, math.ceil(math.log10(max(most, 1.0)) - 1e-9))
    whole = [10.0**power for power in range(decades + 1)]
    thirds = [3 * tick for tick in whole[:-1]] if decades < 3 else []
    return [0.0, *sorted(whole + thirds)]
