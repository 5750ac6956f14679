"""The explanation gallery: images of each kind of right and wrong, each beside its heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from medtl.evaluation.explain import overlaid
from medtl.evaluation.pictures.style import INK, MUTED, SMALL, finished, sheet, short

WIDTH = 8.4  # inches of the figure of square images
WIDEST = 16.0


def explanation_gallery(
    kinds: Mapping[str, np.ndarray],
    images: np.ndarray,
    heats: np.ndarray,
    captions: Sequence[str],
    title: str,
    subtitle: str,
) -> Figure:
    """A row a kind: each image, and right of it the same with its heat laid over.

    Args:
        kinds: the images of each kind, int [at most M]; of a kind without any it says `none`.
        images: [M, C, H, W] (uint8 or uint16, grey or RGB).
        heats: [M, H, W], 0 to 1.
        captions: M lines, one below each image.
        title: of the figure.
        subtitle: below it.
    """
    across = max(1, *(len(each) for each in kinds.values()))
    wide = images.shape[-1] / images.shape[-2] if len(images) else 1.0
    width = min(WIDEST, WIDTH * wide)
    height = 0.9 + len(kinds) * (0.38 + width / (2 * across) / wide)
    figure = sheet(title, subtitle, width, height)
    grid = figure.subplots(len(kinds), 2 * across, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for places, (kind, chosen) in zip(grid, kinds.items(), strict=True):
        places[0].annotate(
            kind, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
            size=SMALL + 1, weight="bold", color=INK,
        )  # fmt: skip
        if len(chosen) == 0:
            places[0].text(0, 0.9, "none", size=SMALL, color=MUTED, va="top")
        for number, index in enumerate(chosen):
            image, heat = images[index], heats[index]
            for axes, map_ in zip(places[2 * number :], (np.zeros_like(heat), heat), strict=False):
                axes.imshow(overlaid(image, map_))
            places[2 * number].annotate(
                short([captions[index]], 40)[0], (0, 0), (0, -4), xycoords="axes fraction",
                textcoords="offset points", va="top", size=SMALL, color=INK,
            )  # fmt: skip
    return finished(figure)
