"""How far images lie from the training images: the familiar ones, and others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import (
    BAD,
    GOOD,
    INK,
    MUTED,
    finished,
    key,
    plain,
    sheet,
    short,
)


def domain_distances(distances: Mapping[str, np.ndarray], table: pd.DataFrame) -> Figure:
    """A box a set of images, the model's own first, and the limit of `in_domain`.

    `distances` [B] by the name of the set, above 1 for a strange image; `table` has a row for each
    in the same order, with `auroc` (NaN for the first) and `flagged`. Boxes hold the middle half
    of the images, lines go from 5 % to 95 %.
    """
    figure = sheet(
        "Which images look strange",
        "distance to the training images; beyond the line an image is not in the domain",
        height=1.7 + 0.5 * len(distances),
        width=8.0,
    )
    axes = plain(figure.subplots(), "Distance, as a share of what is familiar", "")
    axes.grid(visible=False, axis="y")
    for place, each in enumerate(distances.values()):
        least, low, middle, high, most = np.percentile(each, [5, 25, 50, 75, 95])
        axes.hlines(place, least, most, color=MUTED, linewidth=1.2, zorder=1)
        colour = GOOD if place == 0 else BAD
        axes.barh(place, high - low, 0.5, left=low, color=colour, alpha=0.8, zorder=2)
        axes.vlines(middle, place - 0.25, place + 0.25, color=INK, linewidth=1.6, zorder=3)
    axes.axvline(1, color=INK, linewidth=1.4, linestyle="--", label="limit of in_domain")
    names = [
        f"{name}\n{row.flagged:.0%} flagged"
        + ("" if np.isnan(row.auroc) else f", AUROC {row.auroc:.3f}")
        for name, row in zip(short(list(distances)), table.itertuples(), strict=True)
    ]
    axes.set_yticks(np.arange(len(distances)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(distances) - 0.4, -0.6)
    key(axes, "best")
    return finished(figure)
