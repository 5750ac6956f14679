"""The one look of all pictures: sizes, colours that colour-blind readers can tell apart, axes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

# Okabe & Ito 2008, "Color Universal Design", without its yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5A5A5A", "#8C510A")
DASHES = ("-", "--", ":")
INK, MUTED, GRID, PAPER = "#1F2328", "#656D76", "#E3E6EA", "#FFFFFF"
GOOD, BAD = COLOURS[0], COLOURS[1]

DOTS_PER_INCH = 160
TITLE, SUBTITLE, LABEL, SMALL = 13.0, 9.5, 10.0, 8.5
HEADING_INCHES = 0.68


def sheet(title: str, subtitle: str, width: float = 7.0, height: float = 5.0) -> Figure:
    """An empty figure of `width` x `height` inches with its heading; axes go below the heading."""
    figure = Figure((width, height), dpi=DOTS_PER_INCH, facecolor=PAPER, layout="constrained")
    top = 1 - HEADING_INCHES / height
    figure.get_layout_engine().set(rect=(0.0, 0.0, 1.0, top), w_pad=0.1, h_pad=0.08)
    left = 0.13 / width
    figure.text(left, 1 - 0.16 / height, title, size=TITLE, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.42 / height, subtitle, size=SUBTITLE, color=MUTED, va="top")
    return figure


def plain(axes: Axes, across: str, up: str) -> Axes:
    """Gives axes the house look, with `across` and `up` as the labels of x and y."""
    axes.set_xlabel(across, size=LABEL, color=INK)
    axes.set_ylabel(up, size=LABEL, color=INK)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def key(axes: Axes, place: str, title: str = "") -> None:
    """A legend of all that is labelled (if anything is), at matplotlib's `place`."""
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(
        loc=place, fontsize=SMALL, title=title, title_fontsize=SMALL, alignment="left"
    )
    legend.get_frame().set(edgecolor="none", facecolor=PAPER, alpha=0.85)
    for text in (*legend.get_texts(), legend.get_title()):
        text.set_color(INK)


def colour(index: int) -> str:
    """The colour of the series at `index`."""
    return COLOURS[index % len(COLOURS)]


def dash(index: int) -> str:
    """The line style of the series at `index`: it changes when the colours begin again."""
    return DASHES[index // len(COLOURS) % len(DASHES)]


def short(names: Sequence[str], width: int = 24) -> list[str]:
    """Names cut to `width` characters, with an ellipsis where something was cut."""
    return [name if len(name) <= width else f"{name[: width - 1]}…" for name in map(str, names)]


def finished(figure: Figure) -> Figure:
    """The figure with every text taken literally: a `$` in a class name is no formula."""
    texts = list(figure.texts)
    for axes in figure.axes:
        # the ticks of axes that are off would be made for this alone, which takes long
        texts += axes.findobj(Text) if axes.axison else axes.texts
    for text in texts:
        text.set_parse_math(False)
    return figure
