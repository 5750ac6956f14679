"""Plots of robustness: sites, subgroups, distances, perturbations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import overall_metrics
from medtl.evaluation.universal_perturbations import Examples
from medtl.reporting.plots.image_sheets import contact_sheet
from medtl.reporting.plots.style import (
    BAD,
    COLOURS,
    GOOD,
    INK,
    LABEL,
    MUTED,
    SMALL,
    colour,
    dash,
    finished,
    key,
    plain,
    sheet,
    short,
)

APART = 0.14  # of the space of a metric, from its line to each of its two dots


def internal_and_external(table: pd.DataFrame, name: str) -> Figure:
    """Draws each metric on the model's own test split and on external data, with intervals.

    Args:
        table: result of `medtl.evaluation.external_validation.internal_and_external`.
        name: name of the external data.
    """
    figure = sheet(
        f"Internal and external scores: {name}",
        f"bars are 95 % intervals; lower is better for {_errors()}",
        height=1.9 + 0.38 * len(table),
    )
    axes = plain(figure.subplots(), "", "")
    axes.grid(visible=False, axis="y")
    places = np.arange(len(table))
    for index, (column, label) in enumerate(
        (("internal", "internal: the model's own test split"), ("external", f"external: {name}"))
    ):
        values = table[column].to_numpy()
        axes.errorbar(
            values,
            places + (2 * index - 1) * APART,
            xerr=np.abs(table[[f"{column}_low", f"{column}_high"]].to_numpy().T - values),
            fmt="os"[index],
            markersize=5,
            elinewidth=1.4,
            color=COLOURS[index],
            label=label,
        )
    axes.set_yticks(places, [name.replace("_", " ") for name in table["metric"]])
    axes.tick_params(axis="y", labelcolor=INK)
    # room above the first metric, so that the legend covers no bar
    axes.set_ylim(len(table) - 0.5, -1.6)
    key(axes, "upper left")
    return finished(figure)


def _errors() -> str:
    return " and ".join(each.name for each in overall_metrics() if not each.higher_is_better)


def subgroup_scores(table: pd.DataFrame, overall: Mapping[str, Interval]) -> Figure:
    """Draws a panel a metric of `overall` with a row a group of `score_subgroups`.

    The line is the metric of all cases. Groups are marked if the interval of their difference to
    the rest excludes zero. A group without scores has the reason in its row.
    """
    figure = sheet(
        "Scores of subgroups",
        "bars: 95 % intervals; line: all cases; orange squares: differ from the rest",
        width=9.0,
        height=1.9 + 0.3 * max(len(table), 2),
    )
    places = np.arange(len(table))
    panels = figure.subplots(1, len(overall), sharey=True, squeeze=False)[0]
    for axes, (metric, all_cases) in zip(panels, overall.items(), strict=True):
        plain(axes, "", "")
        axes.grid(visible=False, axis="y")
        axes.set_title(metric.replace("_", " "), size=LABEL, color=INK, loc="left")
        axes.axvline(all_cases.value, color=MUTED, linewidth=1)
        bounds = table[[f"{metric}_difference_low", f"{metric}_difference_high"]].to_numpy(float)
        differs = (bounds[:, 0] > 0) | (bounds[:, 1] < 0)
        for rows, shade, marker in ((~differs, GOOD, "o"), (differs, BAD, "s")):
            shown = table[rows]
            values = shown[metric].to_numpy(float)
            bars = np.abs(shown[[f"{metric}_low", f"{metric}_high"]].to_numpy(float).T - values)
            look = {"fmt": marker, "markersize": 5, "elinewidth": 1.4, "color": shade}
            axes.errorbar(values, places[rows], xerr=bars, **look)
    names = [f"{row['column']}: {row['group']} ({row['cases']})" for _, row in table.iterrows()]
    panels[0].set_yticks(places, short(names, 40))
    panels[0].tick_params(axis="y", labelcolor=INK)
    panels[0].set_ylim(len(table) - 0.5, -0.5)
    for place, row in zip(places, table.to_dict("records"), strict=True):
        if np.isnan([row[metric] for metric in overall]).all():
            where = {"xy": (0.02, place), "xycoords": ("axes fraction", "data"), "va": "center"}
            panels[0].annotate(row["note"], size=SMALL, color=MUTED, **where)
    return finished(figure)


def domain_distances(distances: Mapping[str, np.ndarray], table: pd.DataFrame) -> Figure:
    """Draws a box a set of images, the model's own first, and the limit of `in_domain`.

    Boxes span the middle half of the images, lines 5 % to 95 %.

    Args:
        distances: [B] by the name of the set, above 1 for a strange image.
        table: a row a set in the same order, with `auroc` (NaN for the first) and `flagged`.
    """
    figure = sheet(
        "Out-of-distribution images",
        "distance to the training images; beyond the line `in_domain` is false",
        height=1.7 + 0.5 * len(distances),
        width=8.0,
    )
    axes = plain(figure.subplots(), "Distance, as a share of the limit of in_domain", "")
    axes.grid(visible=False, axis="y")
    for place, each in enumerate(distances.values()):
        least, low, middle, high, most = np.percentile(each, [5, 25, 50, 75, 95])
        axes.hlines(place, least, most, color=MUTED, linewidth=1.2, zorder=1)
        colour = GOOD if place == 0 else BAD
        axes.barh(place, high - low, 0.5, left=low, color=colour, alpha=0.8, zorder=2)
        axes.vlines(middle, place - 0.25, place + 0.25, color=INK, linewidth=1.6, zorder=3)
    axes.axvline(1, color=INK, linewidth=1.4, linestyle="--", label="limit of in_domain")
    names = [
        f"{name}\n{row.flagged:.0%} flagged"
        + ("" if np.isnan(row.auroc) else f", AUROC {row.auroc:.3f}")
        for name, row in zip(short(list(distances)), table.itertuples(), strict=True)
    ]
    axes.set_yticks(np.arange(len(distances)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(distances) - 0.4, -0.6)
    key(axes, "best")
    return finished(figure)


SPLITS = {"train": "Training images", "test": "Test images"}


def rate_against_zeta(rates: pd.DataFrame, rate_name: str, norm_name: str) -> Figure:
    """Draws a curve a source of perturbations, on training images (left) and test images (right).

    `rates` has a row a source, bound and split: `source`, `zeta` (a share), `split` (train, test),
    `rate`, `low`, `high` and `images`; all curves begin at the rows of the source `none`, if any.
    """
    counts = rates.groupby("split")["images"].first()
    figure = sheet(
        f"{rate_name} against the size of the perturbation",
        f"{counts['train']:,} training and {counts['test']:,} test images; bars: 95 % intervals",
        width=8.6,
        height=4.4,
    )
    sources = [source for source in rates["source"].unique() if source != "none"]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (split, title) in zip(panels, SPLITS.items(), strict=True):
        across = f"{norm_name} norm, % of the mean norm of an image"
        plain(axes, across, rate_name if split == "train" else "")
        axes.set_title(title, size=10, loc="left")
        here = rates[rates["split"] == split]
        without = here[here["source"] == "none"]
        for index, source in enumerate(sources):
            rows = pd.concat([without, here[here["source"] == source]]).sort_values("zeta")
            bars = np.abs(rows[["low", "high"]].to_numpy().T - rows["rate"].to_numpy())
            axes.errorbar(
                100 * rows["zeta"],
                rows["rate"],
                bars,
                color=colour(index),
                linestyle=dash(index),
                linewidth=1.8,
                elinewidth=1,
                capsize=2,
                marker="o",
                markersize=5,
                label=source,
            )
        axes.set_ylim(-0.02, 1.02)
    key(axes, "upper left", "perturbation from")
    return finished(figure)


def perturbations_sheet(perturbations: Mapping[str, np.ndarray], subtitle: str) -> Figure:
    """Draws perturbations [C, S, S] by name, each amplified to a largest absolute value of 1.

    Grey is no change, black -1, white 1; the caption has the factor of amplification.
    """
    images, captions = [], []
    for name, pattern in perturbations.items():
        strongest = max(float(np.abs(pattern).max()), float(np.finfo(np.float32).tiny))
        images.append(_picture(pattern / strongest))
        captions.append(f"{name}: {1 / strongest:.0f} times" if pattern.any() else f"{name}: none")
    title = "Universal perturbations, amplified"
    return contact_sheet(np.stack(images), captions, title, subtitle)


def perturbed_sheet(examples: Examples, subtitle: str) -> Figure:
    """Draws each image beside the same one perturbed, with the predictions.

    The picture clips values outside black and white; the model's input is not clipped.
    """
    images, classes = examples.images, examples.classes
    shifted = images + examples.pattern
    pairs = np.stack([images, shifted], axis=1).reshape(-1, *images.shape[1:])
    captions = [
        text
        for first, second in zip(examples.own, examples.after, strict=True)
        for text in (f"original: {classes[first]}", f"perturbed: {classes[second]}")
    ]
    return contact_sheet(_picture(pairs), captions, "Images before and after", subtitle)


def _picture(values: np.ndarray) -> np.ndarray:
    """Converts values from -1 to 1 to uint8, clipped."""
    return np.round((np.clip(values, -1, 1) + 1) * 127.5).astype(np.uint8)
