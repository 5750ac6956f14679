"""The decision curve: net benefit against the probability from which one would act."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import (
    INK,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)

BELOW = 0.25  # how far the axis goes below zero, as a share of what is above
ROOM = 1.05


def decision_curves(table: pd.DataFrame, cases: int) -> Figure:
    """A curve a class, with that of treating all; `table` as `decision_curve` gives it.

    `cases` is how many were scored.
    """
    figure = sheet(
        "Decision curve",
        f"{cases:,} cases; the model is of use where it is above treating all and treating none",
        width=7.0,
        height=5.4,
    )
    axes = plain(
        figure.subplots(), "Threshold probability (%)", "Net benefit, true positives a case"
    )
    axes.axhline(0, color=INK, linewidth=1, label="treat none")
    for index, (name, curve) in enumerate(table.groupby("class", sort=False)):
        look = {"color": colour(index)}
        (shown,) = short([name])
        across = 100 * curve["threshold"]
        axes.plot(across, curve["model"], linewidth=1.8, linestyle=dash(index), label=shown, **look)
        axes.plot(
            across,
            curve["treat_all"],
            linewidth=1,
            linestyle=(0, (1, 2)),
            label="" if index else "treat all (dotted)",
            **look,
        )
    top = ROOM * table[["model", "treat_all"]].to_numpy().max(initial=0.0) or 1.0
    axes.set(xlim=(0, 100), ylim=(-BELOW * top, top))
    key(axes, "upper right")
    return finished(figure)
