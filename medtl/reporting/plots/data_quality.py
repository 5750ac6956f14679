"""Plots of a data set before training: copies, sizes, shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from medtl.reporting.plots.image_sheets import contact_sheet
from medtl.reporting.plots.style import (
    BAD,
    DOTS_PER_INCH,
    GOOD,
    INK,
    MUTED,
    PAPER,
    colour,
    finished,
    key,
    plain,
    sheet,
    short,
)


def strip_of_images(images: np.ndarray, places: int) -> Figure:
    """Shows images [M, C, S, S] (uint8 or uint16, grey or RGB) in a row with room for `places`."""
    pixels = np.moveaxis(images / np.iinfo(images.dtype).max, 1, 3)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    gap = max(1, pixels.shape[1] // 40)
    side = pixels.shape[1] + gap
    row = np.ones((side, side * places, 3))
    for place, image in enumerate(pixels):
        row[:-gap, place * side : (place + 1) * side - gap] = image
    figure = Figure((7.4, 7.4 / places), dpi=DOTS_PER_INCH, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(row, aspect="auto")
    return figure


def copies_sheet(pairs: np.ndarray, captions: Sequence[tuple[str, str]], subtitle: str) -> Figure:
    """Shows pairs of images [P, 2, C, S, S], two pairs a row, a caption below each image."""
    images = pairs.reshape(-1, *pairs.shape[2:])
    return contact_sheet(images, [text for pair in captions for text in pair], "Copies", subtitle)


def image_sizes(sizes: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Plots width against height of the files, one dot per size, scaled by the number of images.

    `sizes` has the columns `width`, `height` and, last, one column of counts for each of `classes`,
    in order.
    """
    figure = sheet("Sizes of the images", "as they are in the files; larger dots are more images")
    axes = plain(figure.subplots(), "Width (pixels)", "Height (pixels)")
    counts = sizes.iloc[:, -len(classes) :].to_numpy(int)
    most = max(1, int(counts.max()))
    for index, name in enumerate(classes):
        there = counts[:, index] > 0
        here = sizes[there]
        area = 12 + 200 * counts[there, index] / most
        look = {"s": area, "color": colour(index), "alpha": 0.5, "linewidth": 0}
        axes.scatter(here["width"], here["height"], label=short([name])[0], **look)
    if len(classes) <= 12:
        key(axes, "best")
        legend = axes.get_legend()
        for handle in legend.legend_handles if legend else ():
            if isinstance(handle, PathCollection):
                handle.set_sizes([30])
    return finished(figure)


def shortcut_scores(table: pd.DataFrame, clear: float) -> Figure:
    """Plots the AUROC of each `trace` with its interval (`auroc`, `low`, `high`), first on top.

    Those whose interval lies above `clear` stand out.
    """
    figure = sheet(
        "Labels predicted from how the images were made",
        "AUROC without the picture, cross-validated by patient; bars are 95 % intervals",
        width=8.0,
        height=1.8 + 0.3 * len(table),
    )
    axes = plain(figure.subplots(), "AUROC", "")
    axes.grid(visible=False, axis="y")
    axes.axvline(0.5, color=MUTED, linewidth=1)
    for place, (_, each) in enumerate(table.iterrows()):
        bars = [[each["auroc"] - each["low"]], [each["high"] - each["auroc"]]]
        tint = BAD if each["low"] > clear else GOOD
        axes.errorbar(each["auroc"], place, xerr=bars, fmt="o", color=tint, elinewidth=1.4)
    axes.set_yticks(range(len(table)), short(table["trace"].tolist()))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_xlim(min(0.4, float(table["low"].min()) - 0.02), 1.02)
    return finished(figure)
