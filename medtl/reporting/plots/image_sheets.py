"""Sheets of images: mistakes, contact sheets, heat maps.

A sheet has one Axes whose data units are inches, from the top left corner of the figure: an Axes
for each image would take most of the time that a run needs for its pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medtl.evaluation.doubtful_labels import FINDING
from medtl.evaluation.heatmap_checks import hottest_at_border
from medtl.evaluation.heatmap_evaluation import Gallery
from medtl.inference.grad_cam import overlaid
from medtl.reporting.plots.style import (
    BAD,
    GOOD,
    HEADING_INCHES,
    INK,
    MUTED,
    SMALL,
    finished,
    free_sheet,
    short,
)

COLUMNS = 4
WIDTH = 7.4  # inches of a sheet
MARGIN, GAP = 0.13, 0.14  # inches
LINE = 0.155  # inches of a line of a caption
LETTER = 0.073  # inches of a letter, on average
TILE = 1.4  # inches of a square image in a gallery
WIDEST = 16.8  # inches of a gallery
NARROWEST = 3  # images of a gallery across: the heading needs the room


def mistakes_sheet(images: np.ndarray, mistakes: pd.DataFrame) -> Figure:
    """Draws wrongly decided cases, each with its true and its decided class.

    `images` [M, C, H, W] (uint8 or uint16, grey or RGB) of the rows of `mistakes`: `image` (its
    name), `actual`, `actual_probability`, `decided` and `decided_probability`.
    """
    subtitle = f"{len(images)} cases, the most confidently wrong first"
    if len(images) == 0:
        subtitle = "none: every case was decided right"
    captions = []
    for row in mistakes.to_dict("records"):
        actual, decided = short([row["actual"], row["decided"]], 16)
        captions.append(
            (
                (f"true: {actual} {row['actual_probability']:.2f}", GOOD),
                (f"decided: {decided} {row['decided_probability']:.2f}", BAD),
                (_end(row["image"], 23), MUTED),
            )
        )
    return _sheet("Worst mistakes", subtitle, images, captions)


def finding_mistakes_sheet(images: np.ndarray, mistakes: pd.DataFrame) -> Figure:
    """Draws wrong decisions on findings.

    `images` [M, C, H, W] (uint8 or uint16, grey or RGB) of the rows of `mistakes`: `image` (its
    name), `finding`, `called` (bool) and `probability`.
    """
    subtitle = f"{len(images)} findings, the most confidently wrong first"
    if len(images) == 0:
        subtitle = "none: every finding was decided right"
    captions = []
    for row in mistakes.to_dict("records"):
        kind = "false alarm" if row["called"] else "missed"
        name = short([row["finding"]], 26)[0]
        lines = (name, INK), (f"{kind} {row['probability']:.2f}", BAD)
        captions.append((*lines, (_end(row["image"], 23), MUTED)))
    return _sheet("Worst mistakes", subtitle, images, captions)


def doubtful_sheet(images: np.ndarray, doubtful: pd.DataFrame) -> Figure:
    """Draws cases whose label is in doubt, each with the given and the suggested label.

    `images` [M, C, H, W] (uint8 or uint16, grey or RGB) of the first M rows of `doubtful`: name of
    the case (first column), `label`, `suggested`, `score` and, of findings, `finding`.
    """
    subtitle = f"{len(doubtful)} labels that models of other folds contradict"
    if len(doubtful) > len(images):
        subtitle += f", the first {len(images)}"
    captions = []
    for row in doubtful.head(len(images)).to_dict("records"):
        given, suggested = short([row["label"], row["suggested"]], 15)
        finding = [(name, INK) for name in short([row[FINDING]], 26)] if FINDING in row else []
        captions.append(
            (
                *finding,
                (f"label: {given} {row['score']:.2f}", BAD),
                (f"suggested: {suggested}", GOOD),
                (_end(row[doubtful.columns[0]], 23), MUTED),
            )
        )
    return _sheet("Doubtful labels", subtitle, images, captions)


def contact_sheet(images: np.ndarray, captions: Sequence[str], title: str, subtitle: str) -> Figure:
    """Draws images [M, C, H, W] (uint8 or uint16, grey or RGB) with a caption below each."""
    return _sheet(title, subtitle, images, [((text, INK),) for text in short(captions, 26)])


def _end(name: str, width: int) -> str:
    """Cuts a name to its last `width` characters: those of a path tell files apart.

    >>> _end("train/ill/p0012.png", 10)
    '…p0012.png'
    """
    return name if len(name) <= width else f"…{name[1 - width :]}"


Caption = tuple[tuple[str, str], ...]
"""Lines with their colours."""


def _sheet(title: str, subtitle: str, images: np.ndarray, captions: Sequence[Caption]) -> Figure:
    """Draws images in rows of four, with a caption below each."""
    rows = max(1, -(-len(images) // COLUMNS))
    wide = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS
    high = wide * images.shape[-2] / images.shape[-1]
    step = high + GAP + LINE * max((len(each) for each in captions), default=1)
    figure, axes = free_sheet(title, subtitle, WIDTH, HEADING_INCHES + rows * step + MARGIN)
    for place, (image, lines) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(place, COLUMNS)
        left, top = MARGIN + column * (wide + GAP), HEADING_INCHES + row * step
        _show(axes, _grey_or_colour(image), (left, top, wide, high))
        for number, (text, colour) in enumerate(lines):
            _write(axes, text, left, top + high + 0.05 + number * LINE, colour)
    return finished(figure)


def _grey_or_colour(image: np.ndarray) -> np.ndarray:
    """Scales one image [C, H, W] to 0 (black) to 1 (the white of its depth): [H, W, 3]."""
    pixels = image.transpose(1, 2, 0) / np.iinfo(image.dtype).max
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _show(axes: Axes, pixels: np.ndarray, place: tuple[float, float, float, float]) -> None:
    """Draws pixels [H, W, 3] at a place: left, top, width and height in inches."""
    left, top, wide, high = place
    extent = (left, left + wide, top + high, top)
    axes.imshow(pixels, extent=extent, aspect="auto", vmin=0, vmax=1)


def _write(axes: Axes, text: str, left: float, top: float, colour: str, weight: str = "") -> None:
    axes.text(left, top, text, va="top", size=SMALL, color=colour, weight=weight or "normal")


def explanation_gallery(gallery: Gallery, title: str, subtitle: str) -> Figure:
    """Draws each image, and right of it the same with the heat of each method laid over.

    Each kind of image has a row, or more where its images do not fit side by side; a kind without
    images says `none`. Several methods are named below their maps, and empty maps are marked. At
    the bottom are the scale of colours and the number of maps that are hottest at the border.
    """
    images, heats = gallery.images, gallery.heats
    ratio = images.shape[-1] / images.shape[-2] if len(images) else 1.0
    most = max(1, *(len(each) for each in gallery.kinds.values()))
    tiles = 1 + len(heats)
    across = min(most, max(1, int(WIDEST / (TILE * ratio * tiles))))
    width = min(WIDEST, TILE * ratio * tiles * max(across, NARROWEST))
    rows = list(_rows(gallery, across))
    wide = (width - 2 * MARGIN - (tiles * across - 1) * GAP) / (tiles * across)
    high = wide / ratio
    named = len(heats) > 1
    noted = named or any(not heat.any() for maps in heats.values() for heat in maps)
    lines = 5 if noted else 4
    heights = [lines * LINE + 2 * GAP + high if len(chosen) else 3 * LINE for _, chosen in rows]
    height = HEADING_INCHES + sum(heights) + 4 * LINE
    figure, axes = free_sheet(title, subtitle, width, height)
    tops = HEADING_INCHES + np.cumsum([0.0, *heights])
    for (kind, chosen), top in zip(rows, tops[:-1], strict=True):
        _write(axes, kind, MARGIN, top, INK, weight="bold")
        top = top + LINE + 0.05
        if len(chosen) == 0:
            _write(axes, "none", MARGIN, top, MUTED)
        for place, index in enumerate(chosen):
            drawn = {
                "": np.zeros(images.shape[-2:]),
                **{name: heats[name][index] for name in heats},
            }
            for tile, (method, heat) in enumerate(drawn.items()):
                left = MARGIN + (tiles * place + tile) * (wide + GAP)
                _show(axes, overlaid(images[index], heat), (left, top, wide, high))
                if method and (named or not heat.any()):
                    text = (method if named else "") + ("" if heat.any() else " (empty map)")
                    _write(axes, text.strip(), left, top + high + 0.05, INK)
            left = MARGIN + tiles * place * (wide + GAP)
            below = top + high + 0.05 + (LINE if noted else 0)
            room = int((tiles * (wide + GAP) - GAP) / LETTER)
            *told, file = gallery.captions[index].split("\n")
            for number, text in enumerate((*short(told, room), _end(file, room))):
                _write(axes, text, left, below + number * LINE, INK if number < 2 else MUTED)
    _scale(axes, height - 3.5 * LINE, gallery)
    return finished(figure)


def _scale(axes: Axes, top: float, gallery: Gallery) -> None:
    """Draws the scale of the heat on a grey image, and what it means."""
    heat = np.broadcast_to(np.linspace(0, 1, 100), (2, 100))
    grey = np.full((1, 2, 100), 128, np.uint8)
    _show(axes, overlaid(grey, heat), (MARGIN, top, 1.4, LINE))
    border = sum(int(hottest_at_border(maps).sum()) for maps in gallery.heats.values())
    total = sum(len(maps) for maps in gallery.heats.values())
    lines = (
        f"heat from 0 to 1 (the most in each map): where the score of {gallery.name} comes from,",
        f"no proof of a finding; hottest at the border of the image: {border} of {total} maps",
    )
    for number, text in enumerate(lines):
        _write(axes, text, MARGIN + 1.5, top + number * LINE, INK)


def _rows(gallery: Gallery, across: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the rows: kind of the images ('' for a further row of one) and their places."""
    for kind, chosen in gallery.kinds.items():
        for start in range(0, max(1, len(chosen)), across):
            yield "" if start else kind, chosen[start : start + across]
