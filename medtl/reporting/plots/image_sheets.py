"""Sheets of images: mistakes, contact sheets, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.inference.grad_cam import overlaid
from medtl.reporting.plots.style import BAD, GOOD, INK, MUTED, SMALL, finished, sheet, short

COLUMNS = 4


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
