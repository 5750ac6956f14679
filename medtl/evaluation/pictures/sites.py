"""The picture of a model on two sites: every metric at home and elsewhere, with its intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import COLOURS, INK, finished, key, plain, sheet

APART = 0.14  # of the space of a metric, from its line to each of its two dots


def internal_and_external(table: pd.DataFrame, name: str) -> Figure:
    """Two dots with intervals a metric; `table` as `medtl.evaluation.sites.beside` gives it.

    `name` is that of the data elsewhere.
    """
    figure = sheet(
        f"At home and on {name}",
        "bars are 95 % intervals; lower is better for ece and brier",
        height=1.9 + 0.38 * len(table),
    )
    axes = plain(figure.subplots(), "", "")
    axes.grid(visible=False, axis="y")
    places = np.arange(len(table))
    for index, (column, label) in enumerate(
        (("internal", "internal: the model's own test split"), ("external", f"external: {name}"))
    ):
        values = table[column].to_numpy()
        axes.errorbar(
            values,
            places + (2 * index - 1) * APART,
            xerr=np.abs(table[[f"{column}_low", f"{column}_high"]].to_numpy().T - values),
            fmt="os"[index],
            markersize=5,
            elinewidth=1.4,
            color=COLOURS[index],
            label=label,
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in table["metric"]])
    axes.tick_params(axis="y", labelcolor=INK)
    # room above the first metric, so that the legend covers no bar
    axes.set_ylim(len(table) - 0.5, -1.6)
    key(axes, "upper left")
    return finished(figure)
