"""The explanation gallery: images of each kind of right and wrong, each beside its heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.evaluation.explain import overlaid
from medtl.evaluation.pictures.style import INK, MUTED, SMALL, finished, sheet, short

TILE = 1.4  # inches a square image is wide
WIDEST = 16.8  # inches
NARROWEST = 3  # images: the heading needs the room


def explanation_gallery(
    kinds: Mapping[str, np.ndarray],
    images: np.ndarray,
    heats: Mapping[str, np.ndarray],
    captions: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """Each image, and right of it the same with the heat of each method laid over; a row a kind.

    A kind whose images have no room beside one another takes more rows.

    Args:
        kinds: the images of each kind, int [at most M]; of a kind without any it says `none`.
        images: [M, C, H, W] (uint8 or uint16, grey or RGB).
        heats: of each method, by its name, [M, H, W], 0 to 1; several are named above their maps.
        captions: M lines, one below each image.
        title: of the figure.
        subtitle: below it.
    """
    wide = images.shape[-1] / images.shape[-2] if len(images) else 1.0
    most = max(1, *(len(each) for each in kinds.values()))
    tiles = 1 + len(heats)
    across = min(most, max(1, int(WIDEST / (TILE * wide * tiles))))
    width = min(WIDEST, TILE * wide * tiles * max(across, NARROWEST))
    lines = [
        (kind, chosen[start : start + across])
        for kind, chosen in kinds.items()
        for start in range(0, max(1, len(chosen)), across)
    ]
    height = 0.9 + len(lines) * (0.38 + width / (tiles * across) / wide)
    figure = sheet(title, subtitle, width, height)
    grid = figure.subplots(len(lines), tiles * across, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    begun = set()
    for row, (kind, chosen) in zip(grid, lines, strict=True):
        if kind not in begun:
            _above(row[0], kind)
            begun.add(kind)
        if len(chosen) == 0:
            row[0].text(0, 0.9, "none", size=SMALL, color=MUTED, va="top")
        for number, index in enumerate(chosen):
            plain, *mapped = row[tiles * number : tiles * (number + 1)]
            plain.imshow(overlaid(images[index], np.zeros(images.shape[-2:])))
            _below(plain, short([captions[index]], 40)[0])
            for axes, (method, maps) in zip(mapped, heats.items(), strict=True):
                axes.imshow(overlaid(images[index], maps[index]))
                if len(heats) > 1:
                    _below(axes, method)
    return finished(figure)


def _above(axes: Axes, kind: str) -> None:
    axes.annotate(
        kind, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
        size=SMALL + 1, weight="bold", color=INK,
    )  # fmt: skip


def _below(axes: Axes, words: str) -> None:
    axes.annotate(
        words, (0, 0), (0, -4), xycoords="axes fraction", textcoords="offset points", va="top",
        size=SMALL, color=INK,
    )  # fmt: skip
