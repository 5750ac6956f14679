"""What was decided for each true class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import INK, LABEL, MUTED, PAPER, SMALL, finished, sheet, short

SHADES = LinearSegmentedColormap.from_list("shades", ["#F6F8FA", "#9CC7E4", "#0072B2", "#003E63"])


def confusion_matrix(labels: np.ndarray, decisions: np.ndarray, classes: Sequence[str]) -> Figure:
    """Cases by true class (rows) and decided class (columns), with the share of the row.

    `labels` and `decisions` int [N], index into the K `classes`. The diagonal shares are the
    sensitivities.
    """
    size = len(classes)
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (labels, decisions), 1)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)

    right = int(np.trace(counts))
    side = min(3.0 + 0.62 * size, 12.0)
    figure = sheet(
        "Confusion matrix",
        f"{right:,} of {len(labels):,} cases decided right; shares are of the true class (row)",
        width=max(side + 1.2, 7.0),
        height=max(side, 5.0),
    )
    axes = figure.subplots()
    axes.imshow(shares, cmap=SHADES, vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        count, share = counts[row, column], shares[row, column]
        axes.text(
            column,
            row,
            f"{share:.0%}\n{count}" if count else "0",
            ha="center",
            va="center",
            size=LABEL + 1 if size <= 6 else SMALL - 1,
            color=PAPER if share > 0.55 else INK if count else MUTED,
            linespacing=1.35,
        )
    names = short(classes, 18)
    rows = [f"{name}\nn = {total}" for name, total in zip(names, totals.ravel(), strict=True)]
    axes.set_xticks(
        range(size), names, rotation=0 if size <= 5 else 40, ha="center" if size <= 5 else "right"
    )
    axes.set_yticks(range(size), rows)
    axes.set_xlabel("Decided", size=LABEL, color=INK)
    axes.set_ylabel("True", size=LABEL, color=INK, labelpad=8)
    axes.tick_params(length=0, labelsize=SMALL + 0.5, labelcolor=INK)
    # White lines between the cells.
    edges = np.arange(size - 1) + 0.5
    axes.hlines(edges, -0.5, size - 0.5, color=PAPER, linewidth=2)
    axes.vlines(edges, -0.5, size - 0.5, color=PAPER, linewidth=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return finished(figure)
