"""Whether probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import MUTED, colour, finished, key, plain, sheet


def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against probability of the most probable class, with the number of cases below.

    `tables` maps a name (such as "as trained", "calibrated") to a
    `medtl.evaluation.calibration.reliability_table` of the same cases.
    """
    cases = int(next(iter(tables.values()))["cases"].sum())
    figure = sheet(
        "Reliability of the probabilities",
        f"{cases:,} cases by the probability of the most probable class; bars are 95 % intervals",
        height=5.6,
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    plain(above, "", "Share that was right")
    plain(below, "Probability of the most probable class", "Cases")
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    lowest = 1.0
    for index, (name, table) in enumerate(tables.items()):
        gap = np.average(np.abs(table["accuracy"] - table["confidence"]), weights=table["cases"])
        bars = np.abs(table[["low", "high"]].to_numpy().T - table["accuracy"].to_numpy())
        look = {"color": colour(index), "label": f"{name}: calibration error {gap:.3f}"}
        above.errorbar(
            table["confidence"],
            table["accuracy"],
            bars,
            fmt="o-",
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            **look,
        )
        width = (table["to"] - table["from"]) / len(tables)
        below.bar(
            table["from"] + index * width,
            table["cases"],
            width * 0.92,
            align="edge",
            color=colour(index),
        )
        lowest = min(lowest, table["from"].min())
    above.set(xlim=(max(0.0, lowest - 0.02), 1.01), ylim=(-0.02, 1.02))
    key(above, "lower right")
    return finished(figure)
