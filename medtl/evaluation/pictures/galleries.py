"""Sheets of images: the worst mistakes, and what a data set looks like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.evaluation.pictures.style import BAD, GOOD, INK, SMALL, finished, sheet, short

COLUMNS = 4


def worst_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> np.ndarray:
    """Indices of at most `count` wrongly decided cases, the most confidently wrong first.

    `labels`, `decisions` int [N], `probabilities` [N, K].
    """
    wrong = np.flatnonzero(labels != decisions)
    confidence = probabilities[wrong, decisions[wrong]]
    return wrong[np.argsort(-confidence, kind="stable")][:count]


def mistakes_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    decisions: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """Wrongly decided cases as a sheet, each with its true and its decided class.

    `images` [M, C, S, S] (uint8 or uint16, grey or RGB), `labels` and `decisions` int [M],
    `probabilities` [M, K]: the cases of `worst_mistakes`, in their order.
    """
    figure, places = _image_sheet(
        "Worst mistakes",
        "none: every case was decided right"
        if len(images) == 0
        else f"{len(images)} cases, the most confidently wrong first",
        len(images),
        caption_inches=0.5,
    )
    names = short(classes, 16)
    for place, image, label, decision, row in zip(
        places, images, labels, decisions, probabilities, strict=True
    ):
        _show(place, image)
        _caption(place, 0, f"true: {names[label]} {row[label]:.2f}", GOOD)
        _caption(place, 1, f"said: {names[decision]} {row[decision]:.2f}", BAD)
    return finished(figure)


def worst_finding_mistakes(
    labels: np.ndarray, decisions: np.ndarray, probabilities: np.ndarray, count: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """At most `count` wrong decisions on findings, the most confidently wrong first.

    `labels` int8 [N, K] (1 present, 0 absent, -1 unknown), `decisions` bool [N, K],
    `probabilities` [N, K].

    Returns:
        The cases and the findings, int64 [M] each.
    """
    cases, findings = np.nonzero((labels >= 0) & (decisions != (labels == 1)))
    said = probabilities[cases, findings]
    confidence = np.where(decisions[cases, findings], said, 1 - said)
    order = np.argsort(-confidence, kind="stable")[:count]
    return cases[order], findings[order]


def finding_mistakes_sheet(
    images: np.ndarray, findings: Sequence[str], called: np.ndarray, probabilities: np.ndarray
) -> Figure:
    """Wrong decisions on findings as a sheet, in the order of `worst_finding_mistakes`.

    `images` [M, C, S, S] (uint8 or uint16, grey or RGB); for each the finding's name, whether it
    was called so (bool [M]) and its probability [M].
    """
    figure, places = _image_sheet(
        "Worst mistakes",
        "none: every finding was decided right"
        if len(images) == 0
        else f"{len(images)} findings, the most confidently wrong first",
        len(images),
        caption_inches=0.5,
    )
    rows = zip(places, images, short(findings, 26), called, probabilities, strict=True)
    for place, image, finding, wrongly, probability in rows:
        _show(place, image)
        _caption(place, 0, finding, INK)
        _caption(place, 1, f"{'false alarm' if wrongly else 'missed'} {probability:.2f}", BAD)
    return finished(figure)


def contact_sheet(images: np.ndarray, captions: Sequence[str], title: str, subtitle: str) -> Figure:
    """Images [M, C, S, S] (uint8 or uint16, grey or RGB) as a sheet, a caption below each."""
    figure, places = _image_sheet(title, subtitle, len(images), caption_inches=0.3)
    for place, image, text in zip(places, images, short(captions, 26), strict=True):
        _show(place, image)
        _caption(place, 0, text, INK)
    return finished(figure)


def _image_sheet(
    title: str, subtitle: str, count: int, caption_inches: float
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` empty places in rows of four, and room for captions below each."""
    rows = -(-count // COLUMNS)
    figure = sheet(title, subtitle, width=7.4, height=1.0 + rows * (1.75 + caption_inches))
    grid = figure.subplots(max(1, rows), COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _show(axes: Axes, image: np.ndarray) -> None:
    """Draws one image [C, S, S] from black to the white of its depth."""
    white = np.iinfo(image.dtype).max
    pixels = image.transpose(1, 2, 0) / white
    axes.imshow(pixels.squeeze(-1) if len(image) == 1 else pixels, cmap="gray", vmin=0, vmax=1)


def _caption(axes: Axes, line: int, text: str, colour: str) -> None:
    axes.annotate(
        text,
        (0, 0),
        (0, -4 - 11 * line),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        size=SMALL,
        color=colour,
    )
