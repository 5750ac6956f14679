"""The picture of a model on parts of its cases: dots with intervals, a line for all cases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.intervals import Interval
from medtl.evaluation.pictures.style import (
    BAD,
    GOOD,
    INK,
    LABEL,
    MUTED,
    SMALL,
    finished,
    plain,
    sheet,
    short,
)


def subgroup_scores(table: pd.DataFrame, overall: Mapping[str, Interval]) -> Figure:
    """A panel a metric of `overall`, a row a group; `table` as `score_subgroups` gives it.

    The line is the metric of all cases. A dot is marked where the interval of the difference to
    the rest excludes zero. A group without scores has the reason in its row.
    """
    figure = sheet(
        "Scores of subgroups",
        "bars: 95 % intervals; line: all cases; orange squares: differ from the rest",
        width=9.0,
        height=1.9 + 0.3 * max(len(table), 2),
    )
    places = np.arange(len(table))
    panels = figure.subplots(1, len(overall), sharey=True, squeeze=False)[0]
    for axes, (metric, all_cases) in zip(panels, overall.items(), strict=True):
        plain(axes, "", "")
        axes.grid(visible=False, axis="y")
        axes.set_title(metric.replace("_", " "), size=LABEL, color=INK, loc="left")
        axes.axvline(all_cases.value, color=MUTED, linewidth=1)
        bounds = table[[f"{metric}_difference_low", f"{metric}_difference_high"]].to_numpy(float)
        differs = (bounds[:, 0] > 0) | (bounds[:, 1] < 0)
        for rows, colour, marker in ((~differs, GOOD, "o"), (differs, BAD, "s")):
            shown = table[rows]
            values = shown[metric].to_numpy(float)
            bars = np.abs(shown[[f"{metric}_low", f"{metric}_high"]].to_numpy(float).T - values)
            look = {"fmt": marker, "markersize": 5, "elinewidth": 1.4, "color": colour}
            axes.errorbar(values, places[rows], xerr=bars, **look)
    names = [f"{row['column']}: {row['group']} ({row['cases']})" for _, row in table.iterrows()]
    panels[0].set_yticks(places, short(names, 40))
    panels[0].tick_params(axis="y", labelcolor=INK)
    panels[0].set_ylim(len(table) - 0.5, -0.5)
    for place, row in zip(places, table.to_dict("records"), strict=True):
        if np.isnan([row[metric] for metric in overall]).all():
            where = {"xy": (0.02, place), "xycoords": ("axes fraction", "data"), "va": "center"}
            panels[0].annotate(row["note"], size=SMALL, color=MUTED, **where)
    return finished(figure)
