"""How a search went: its trials in order, what mattered, and all trials at a glance.

A table of trials has a row a trial: `number`, `state` (`complete`, `pruned` or `failed`), `score`
(of a pruned trial the last one seen, NaN where there is none) and a column a parameter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medtl.evaluation.pictures.style import (
    BAD,
    GOOD,
    INK,
    MUTED,
    SMALL,
    finished,
    key,
    plain,
    sheet,
    short,
)


def search_history(trials: pd.DataFrame, metric: str) -> Figure:
    """The score of each trial in order, with the best so far; pruned and failed ones marked."""
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
        label="pruned, at its last epoch",
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
    """How much of the spread of scores each parameter explains, the largest on top.

    `importances` maps a parameter to its share, 0 to 1 (such as fANOVA, Hutter et al. 2014).
    """
    ranked = sorted(importances.items(), key=lambda pair: pair[1])
    figure = sheet(
        "What mattered in the search",
        f"share of the spread of {metric} that a parameter explains",
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
