"""Plots of classification: ROC, precision-recall, confusion, reliability, decision curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from medtl.evaluation.scored_cases import (
    DecidedCases,
    Ranking,
    asked_about,
    has_findings,
    labelled_cases,
)
from medtl.label_syntax import negative_labels
from medtl.reporting.plots.style import (
    BAD,
    GOOD,
    INK,
    LABEL,
    MUTED,
    PAPER,
    SMALL,
    Place,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)

MOST_INSIDE = 7  # curves whose legend has room among them


def roc_curves(cases: DecidedCases, per_class: pd.DataFrame) -> Figure:
    """Draws sensitivity against false positive rate, with a dot at the operating point.

    `per_class` is the table of `Measures`, whose areas and intervals are in the legend. With two
    classes only the second, the positive one, is drawn.
    """
    labels = cases.labels
    figure = sheet("ROC curve", _subtitle(labels, per_class), _width(per_class), height=5.6)
    axes = _unit_square(figure, "False positive rate (1 - specificity)", "Sensitivity")
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    for index, row in _drawn_classes(labels, per_class):
        known, positive = labelled_cases(labels, index)
        true, false = Ranking.of(positive, cases.probabilities[known, index]).curve()
        rate_true, rate_false = _from_zero(true / true[-1]), _from_zero(false / false[-1])
        axes.plot(rate_false, rate_true, **_line(index, row, "auroc"))
        _mark(axes, index, 1 - row["specificity"], row["sensitivity"])
    _key(axes, per_class, "lower right", "Area under the curve (95 % interval)")
    return finished(figure)


def precision_recall_curves(cases: DecidedCases, per_class: pd.DataFrame) -> Figure:
    """Draws precision against recall, with a dotted line at each class's share of the cases.

    Arguments as in `roc_curves`.
    """
    labels = cases.labels
    subtitle, width = _subtitle(labels, per_class), _width(per_class)
    figure = sheet("Precision and recall", subtitle, width, height=5.6)
    axes = _unit_square(figure, "Recall (sensitivity)", "Precision (positive predictive value)")
    for index, row in _drawn_classes(labels, per_class):
        known, positive = labelled_cases(labels, index)
        true, false = Ranking.of(positive, cases.probabilities[known, index]).curve()
        recall, precision = true / true[-1], true / (true + false)
        # A step: between two thresholds recall cannot be had at the better one's precision.
        axes.step(
            _from_zero(recall),
            np.append(precision[:1], precision),
            where="pre",
            **_line(index, row, "auprc"),
        )
        axes.axhline(
            np.mean(positive),
            color=colour(index),
            linewidth=1,
            alpha=0.7,
            linestyle=(0, (1, 3)),
        )
        _mark(axes, index, row["sensitivity"], row["precision"])
    _key(axes, per_class, "lower left", "Average precision (95 % interval)")
    return finished(figure)


def _drawn_classes(labels: np.ndarray, per_class: pd.DataFrame) -> Iterator[tuple[int, pd.Series]]:
    """Yields the classes with a curve: those with an area, of two only the second."""
    for index in asked_about(labels, len(per_class)):
        row = per_class.iloc[index]
        if np.isfinite(row["auroc"]):
            yield index, row


def _width(per_class: pd.DataFrame) -> float:
    """Returns the width of the figure in inches; with many curves the legend is beside them."""
    return 7.0 if len(per_class) <= MOST_INSIDE else 10.6


def _key(axes: Axes, per_class: pd.DataFrame, place: Place, title: str) -> None:
    key(axes, place, title)
    if len(per_class) > MOST_INSIDE:
        _move_beside(axes)


def _move_beside(axes: Axes) -> None:
    """Moves the legend, if there is one, to the right of the axes."""
    legend = axes.get_legend()
    if legend is not None:
        legend.set_loc("upper left")
        legend.set_bbox_to_anchor((1.0, 1.0))


def _subtitle(labels: np.ndarray, per_class: pd.DataFrame) -> str:
    what, dot = "each class against the rest", "the dot is the decision among all classes"
    if has_findings(labels):
        what, dot = "each finding where it is known", "the dot is the operating point"
    elif len(per_class) == 2:
        what = f"{per_class['class'][1]} against {per_class['class'][0]}"
        dot = "the dot is the operating point"
    return f"{len(labels):,} cases, {what}; {dot}"


def _unit_square(figure: Figure, across: str, up: str) -> Axes:
    axes = plain(figure.subplots(), across, up)
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015))
    return axes


def _from_zero(values: np.ndarray) -> np.ndarray:
    return np.append(0.0, values)


def _line(index: int, row: pd.Series, metric: str) -> dict:
    (name,) = short([row["class"]])
    bounds = f"{row[f'{metric}_low']:.3f} to {row[f'{metric}_high']:.3f}"
    text = f"{row[metric]:.3f} ({bounds})  {name}, n = {row['cases']:,}"
    return {"color": colour(index), "linestyle": dash(index), "linewidth": 1.8, "label": text}


def _mark(axes: Axes, index: int, across: float, up: float) -> None:
    axes.plot(
        across,
        up,
        "o",
        color=colour(index),
        markeredgecolor=PAPER,
        markersize=8,
        markeredgewidth=1,
        clip_on=False,
        zorder=5,
    )


SHADES = LinearSegmentedColormap.from_list("shades", ["#F6F8FA", "#9CC7E4", "#0072B2", "#003E63"])


def confusion_matrix(cases: DecidedCases) -> Figure:
    """Draws counts by true class (rows) and decided class (columns), with the share of the row.

    The diagonal shares are the sensitivities.
    """
    labels, decisions, classes = cases.labels, cases.decisions, cases.classes
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


def reliability_diagram(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws accuracy by the probability of the most probable class, and the number of cases.

    `tables` maps a name (such as "as trained", "calibrated") to a
    `medtl.evaluation.calibration.reliability_table` of the same cases.
    """
    cases = int(next(iter(tables.values()))["cases"].sum())
    figure = sheet(
        "Reliability of the probabilities",
        f"{cases:,} cases by the probability of the most probable class; bars are 95 % intervals",
        height=5.6,
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    plain(above, "", "Share that was right")
    plain(below, "Probability of the most probable class", "Cases")
    above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
    lowest = 1.0
    for index, (name, table) in enumerate(tables.items()):
        gap = np.average(np.abs(table["accuracy"] - table["confidence"]), weights=table["cases"])
        bars = np.abs(table[["low", "high"]].to_numpy().T - table["accuracy"].to_numpy())
        look = {"color": colour(index), "label": f"{name}: calibration error {gap:.3f}"}
        above.errorbar(
            table["confidence"],
            table["accuracy"],
            bars,
            fmt="o-",
            markersize=5,
            linewidth=1.6,
            elinewidth=1,
            **look,
        )
        width = (table["to"] - table["from"]) / len(tables)
        below.bar(
            table["from"] + index * width,
            table["cases"],
            width * 0.92,
            align="edge",
            color=colour(index),
        )
        lowest = min(lowest, table["from"].min())
    above.set(xlim=(max(0.0, lowest - 0.02), 1.01), ylim=(-0.02, 1.02))
    key(above, "lower right")
    return finished(figure)


BELOW = 0.25  # how far the axis goes below zero, as a share of what is above
ROOM = 1.05


def decision_curves(table: pd.DataFrame, cases: int) -> Figure:
    """Draws the net benefit of each class that would be acted on, and of acting on all cases.

    Negative labels (`medtl.label_syntax.negative_labels`) beside others are not acted on.

    Args:
        table: result of `decision_curve`.
        cases: number of scored cases.
    """
    names = set(table["class"])
    negative = negative_labels(names) if len(names) > 1 else set()
    acted_on = table[~table["class"].isin(negative if negative < names else set())]
    figure = sheet(
        "Decision curve: benefit of acting on a predicted class",
        f"{cases:,} cases; the model is useful where its curve is above both dotted and black",
        width=9.0,
        height=5.0,
    )
    axes = plain(
        figure.subplots(),
        "Threshold: probability from which one acts (%)",
        "Net benefit (true positives a case)",
    )
    axes.axhline(0, color=INK, linewidth=1, label="acting on no case")
    for index, (name, curve) in enumerate(acted_on.groupby("class", sort=False)):
        (shown,) = short([name])
        across = 100 * curve["threshold"]
        axes.plot(
            across,
            curve["model"],
            linewidth=1.8,
            linestyle=dash(index),
            label=f"{shown}: by the model",
            color=colour(index),
        )
        axes.plot(
            across,
            curve["treat_all"],
            linewidth=1,
            linestyle=(0, (1, 2)),
            label=f"{shown}: on all cases",
            color=colour(index),
        )
    top = ROOM * acted_on[["model", "treat_all"]].to_numpy().max(initial=0.0) or 1.0
    axes.set(xlim=(0, 100), ylim=(-BELOW * top, top))
    key(axes, "best")
    _move_beside(axes)
    return finished(figure)


COLUMNS = 4  # panels side by side
FEWEST = 5  # cases of a bin that is drawn
NARROWEST = 0.12  # the share of a bar in which a number has room


def finding_decisions(counts: pd.DataFrame) -> Figure:
    """Draws the decisions on cases with each finding, and on those without it.

    `counts` is a result of `medtl.evaluation.calibration.finding_counts`.
    """
    figure = sheet(
        "Decisions",
        "each finding at its own threshold; cases of which it is unknown are left out",
        width=9.0,
        height=1.7 + 0.42 * len(counts),
    )
    left, right = figure.subplots(1, 2, sharey=True)
    _shares(left, counts, ("found", "missed"), "With the finding")
    _shares(right, counts, ("rightly_not_called", "false_alarms"), "Without it")
    left.set_yticks(range(len(counts)), short(counts["finding"].tolist()))
    left.set_ylim(len(counts) - 0.5, -0.5)
    for axes in (left, right):
        axes.tick_params(axis="y", labelcolor=INK, length=0)
    return finished(figure)


def _shares(axes: Axes, counts: pd.DataFrame, names: tuple[str, str], title: str) -> None:
    """Draws a bar a finding from 0 to 1: the share decided right, then the share decided wrong."""
    plain(axes, "Share of the cases", "")
    axes.grid(visible=False, axis="y")
    axes.set_title(title, size=LABEL, color=INK, loc="left")
    total = counts[list(names)].sum(axis=1).clip(lower=1)
    start = 0 * total
    for name, tint in zip(names, (GOOD, BAD), strict=True):
        share = counts[name] / total
        axes.barh(range(len(counts)), share, left=start, color=tint, height=0.66,
                  label=name.replace("_", " "))  # fmt: skip
        for place, (begin, width, count) in enumerate(zip(start, share, counts[name], strict=True)):
            if width >= NARROWEST:
                axes.text(begin + width / 2, place, f"{count:,}", ha="center", va="center",
                          size=SMALL, color=PAPER)  # fmt: skip
        start = start + share
    axes.set_xlim(0, 1)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=SMALL, frameon=False,
        labelcolor=INK, borderpad=0, handlelength=1.0,
    )  # fmt: skip


def finding_reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws the frequency of each finding by its probability, a panel each.

    `tables` maps a name (such as "as trained", "calibrated") to a
    `medtl.evaluation.calibration.presence_reliability` of the same cases.
    """
    findings = next(iter(tables.values()))["finding"].unique().tolist()
    rows = max(1, -(-len(findings) // COLUMNS))
    figure = sheet(
        "Reliability of the probabilities",
        "how often a finding was there, by its probability, where at least "
        f"{FEWEST} cases have it; bars are 95 % intervals",
        width=10.0,
        height=1.2 + 2.5 * rows,
    )
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, finding in zip(grid, findings, strict=False):
        axes.set_axis_on()
        plain(axes, "", "")
        axes.set_title(short([finding])[0], size=LABEL, color=INK, loc="left")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for index, (name, table) in enumerate(tables.items()):
            here = table[(table["finding"] == finding) & (table["cases"] >= FEWEST)]
            bars = np.abs(here[["low", "high"]].to_numpy().T - here["accuracy"].to_numpy())
            look = {"markersize": 3.5, "linewidth": 1.3, "elinewidth": 0.8, "color": colour(index)}
            axes.errorbar(here["confidence"], here["accuracy"], bars, fmt="o-", label=name, **look)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    key(grid[0], "upper left")
    figure.supxlabel("Probability of the finding", size=LABEL, color=INK)
    figure.supylabel("Share that had it", size=LABEL, color=INK)
    return finished(figure)
