"""The score against the cut-off layer: where freezing should end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
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

LABELS_AT_MOST = 32


def score_against_cutoff(
    curves: Mapping[str, pd.DataFrame], order: Sequence[str], metric: str
) -> Figure:
    """A curve a name over the cut-offs in forward order, with the best cut-off of each marked.

    `order` names the cut-offs from the first (everything is trained) to the last (the head alone).
    A table of `curves` has the columns `cutoff`, `score` and, where they are known, `low` and
    `high`, drawn as bars. A cut-off may be missing from it; where it has several rows (trials,
    repeats) each is a dot, and the line goes through the best.
    """
    names = short(order, 42)
    figure = sheet(
        f"{metric[:1].upper()}{metric[1:]} against the cut-off",
        "everything before the cut-off is frozen; the best cut-off of each curve is ringed",
        width=min(max(7.0, 3.0 + 0.26 * len(order)), 13.0),
        height=4.4 + 0.055 * max(map(len, names)),
    )
    axes = plain(
        figure.subplots(),
        "First trained layer (far left: everything is trained; far right: the head alone)",
        metric,
    )
    place = {cutoff: index for index, cutoff in enumerate(order)}
    for index, (name, table) in enumerate(curves.items()):
        look = {"color": colour(index)}
        best = table.sort_values("score").groupby("cutoff", observed=True).tail(1)
        best = best.assign(place=best["cutoff"].map(place)).sort_values("place")
        if len(best) < len(table):
            every = table["cutoff"].map(place).astype(float)
            axes.plot(every, table["score"], "o", markersize=4, alpha=0.35, linewidth=0, **look)
        axes.plot(
            best["place"],
            best["score"],
            marker="o",
            markersize=5 if len(order) <= LABELS_AT_MOST else 3,
            linewidth=1.8,
            linestyle=dash(index),
            label=name,
            **look,
        )
        if {"low", "high"} <= set(best.columns):
            bars = np.abs(best[["low", "high"]].to_numpy().T - best["score"].to_numpy())
            axes.errorbar(best["place"], best["score"], bars, fmt="none", elinewidth=1, **look)
        top = best.loc[best["score"].idxmax()]
        axes.plot(
            top["place"],
            top["score"],
            "o",
            markersize=12,
            markerfacecolor="none",
            markeredgewidth=2,
            zorder=5,
            **look,
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
            **look,
        )
    # Too many names would cover each other; the last one, the head, always stands.
    every = -(-len(order) // LABELS_AT_MOST)
    shown = range((len(order) - 1) % every, len(order), every)
    axes.set_xticks(
        list(shown), [names[i] for i in shown], rotation=50, ha="right", rotation_mode="anchor"
    )
    axes.margins(x=0.03, y=0.12)
    axes.tick_params(axis="x", labelcolor=MUTED, pad=3)
    key(axes, "best")
    return finished(figure)
