"""Pictures of findings, of which a case has any number: decisions, and probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import (
    BAD,
    GOOD,
    INK,
    LABEL,
    MUTED,
    PAPER,
    SMALL,
    colour,
    finished,
    key,
    plain,
    sheet,
    short,
)

COLUMNS = 4  # panels side by side
FEWEST = 5  # cases of a bin that is drawn
NARROWEST = 0.12  # the share of a bar in which a number has room


def finding_decisions(counts: pd.DataFrame) -> Figure:
    """What was decided of the cases that have a finding, and of those that have it not.

    `counts` as `medtl.evaluation.presence.finding_counts` gives it.
    """
    figure = sheet(
        "Decisions",
        "each finding at its own threshold; cases of which it is unknown are left out",
        width=9.0,
        height=1.7 + 0.42 * len(counts),
    )
    left, right = figure.subplots(1, 2, sharey=True)
    _shares(left, counts, ("found", "missed"), "With the finding")
    _shares(right, counts, ("rightly_not_called", "false_alarms"), "Without it")
    left.set_yticks(range(len(counts)), short(counts["finding"].tolist()))
    left.set_ylim(len(counts) - 0.5, -0.5)
    for axes in (left, right):
        axes.tick_params(axis="y", labelcolor=INK, length=0)
    return finished(figure)


def _shares(axes: Axes, counts: pd.DataFrame, names: tuple[str, str], title: str) -> None:
    """A bar a finding from 0 to 1: the share decided right, then the share decided wrong."""
    plain(axes, "Share of the cases", "")
    axes.grid(visible=False, axis="y")
    axes.set_title(title, size=LABEL, color=INK, loc="left")
    total = counts[list(names)].sum(axis=1).clip(lower=1)
    start = 0 * total
    for name, tint in zip(names, (GOOD, BAD), strict=True):
        share = counts[name] / total
        axes.barh(range(len(counts)), share, left=start, color=tint, height=0.66,
                  label=name.replace("_", " "))  # fmt: skip
        for place, (begin, width, count) in enumerate(zip(start, share, counts[name], strict=True)):
            if width >= NARROWEST:
                axes.text(begin + width / 2, place, f"{count:,}", ha="center", va="center",
                          size=SMALL, color=PAPER)  # fmt: skip
        start = start + share
    axes.set_xlim(0, 1)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=SMALL, frameon=False,
        labelcolor=INK, borderpad=0, handlelength=1.0,
    )  # fmt: skip


def finding_reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """How often each finding was there against its probability, a panel each.

    `tables` maps a name (such as "as trained", "calibrated") to a
    `medtl.evaluation.presence.presence_reliability` of the same cases.
    """
    findings = next(iter(tables.values()))["finding"].unique().tolist()
    rows = max(1, -(-len(findings) // COLUMNS))
    figure = sheet(
        "Reliability of the probabilities",
        "how often a finding was there, by its probability, where at least "
        f"{FEWEST} cases have it; bars are 95 % intervals",
        width=10.0,
        height=1.2 + 2.5 * rows,
    )
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, finding in zip(grid, findings, strict=False):
        axes.set_axis_on()
        plain(axes, "", "")
        axes.set_title(short([finding])[0], size=LABEL, color=INK, loc="left")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for index, (name, table) in enumerate(tables.items()):
            here = table[(table["finding"] == finding) & (table["cases"] >= FEWEST)]
            bars = np.abs(here[["low", "high"]].to_numpy().T - here["accuracy"].to_numpy())
            look = {"markersize": 3.5, "linewidth": 1.3, "elinewidth": 0.8, "color": colour(index)}
            axes.errorbar(here["confidence"], here["accuracy"], bars, fmt="o-", label=name, **look)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    key(grid[0], "upper left")
    figure.supxlabel("Probability of the finding", size=LABEL, color=INK)
    figure.supylabel("Share that had it", size=LABEL, color=INK)
    return finished(figure)
