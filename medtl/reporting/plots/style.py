"""Style of all figures: sizes, colours that colour-blind readers can distinguish, axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

Place = Literal["best", "upper left", "upper right", "lower left", "lower right"]

# Okabe & Ito 2008, "Color Universal Design", without its yellow, which is pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5A5A5A", "#8C510A")
DASHES = ("-", "--", ":")
INK, MUTED, GRID, PAPER = "#1F2328", "#656D76", "#E3E6EA", "#FFFFFF"
GOOD, BAD = COLOURS[0], COLOURS[1]

DOTS_PER_INCH = 160
TITLE, SUBTITLE, LABEL, SMALL = 13.0, 9.5, 10.0, 8.5
HEADING_INCHES = 0.68


def sheet(title: str, subtitle: str, width: float = 7.0, height: float = 5.0) -> Figure:
    """Returns an empty figure of `width` x `height` inches with its heading above the axes."""
    layout = ConstrainedLayoutEngine(
        rect=(0.0, 0.0, 1.0, 1 - HEADING_INCHES / height), w_pad=0.1, h_pad=0.08
    )
    figure = Figure((width, height), dpi=DOTS_PER_INCH, facecolor=PAPER, layout=layout)
    _heading(figure, title, subtitle)
    return figure


def free_sheet(title: str, subtitle: str, width: float, height: float) -> tuple[Figure, Axes]:
    """Returns a figure with its heading and one Axes in inches, (0, 0) at the top left corner."""
    figure = Figure((width, height), dpi=DOTS_PER_INCH, facecolor=PAPER)
    _heading(figure, title, subtitle)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.autoscale(False)
    return figure, axes


def _heading(figure: Figure, title: str, subtitle: str) -> None:
    width, height = figure.get_size_inches()
    left = 0.13 / width
    figure.text(left, 1 - 0.16 / height, title, size=TITLE, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.42 / height, subtitle, size=SUBTITLE, color=MUTED, va="top")


def plain(axes: Axes, across: str, up: str) -> Axes:
    """Applies the style to axes, with `across` and `up` as the labels of x and y."""
    axes.set_xlabel(across, size=LABEL, color=INK)
    axes.set_ylabel(up, size=LABEL, color=INK)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def key(axes: Axes, place: Place, title: str = "") -> None:
    """Adds a legend at matplotlib's `place`, if anything has a label."""
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(
        loc=place, fontsize=SMALL, title=title, title_fontsize=SMALL, alignment="left"
    )
    legend.get_frame().set(edgecolor="none", facecolor=PAPER, alpha=0.85)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_color(INK)


def colour(index: int) -> str:
    """Returns the colour of the series at `index`."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> str:
    """Returns the line style of the series at `index`; it changes when the colours repeat."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


def short(names: Sequence[str], width: int = 24) -> list[str]:
    """Cuts names to `width` characters, with an ellipsis.

    >>> short(["lung", "pneumothorax"], 6)
    ['lung', 'pneum…']
    """
    return [name if len(name) <= width else f"{name[: width - 1]}…" for name in map(str, names)]


def finished(figure: Figure) -> Figure:
    """Returns the figure with all texts literal: a `$` in a class name starts no formula."""
    texts = list(figure.texts)
    for axes in figure.axes:
        # finding the texts of axes that are off would create their ticks, which takes long
        texts += axes.findobj(Text) if axes.axison else axes.texts
    for text in texts:
        text.set_parse_math(False)
    return figure
