"""Universal perturbations: how many images they fool, what they look like, what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.evaluation.pictures.galleries import contact_sheet
from medtl.evaluation.pictures.style import colour, dash, finished, key, plain, sheet

SPLITS = {"train": "Training images", "test": "Test images"}


def rate_against_zeta(rates: pd.DataFrame, rate_name: str, norm_name: str) -> Figure:
    """A curve for each source of perturbations, on training images left and test images right.

    `rates` has a row a source, bound and split: `source`, `zeta` (a share), `split` (train, test),
    `rate`, `low`, `high` and `images`; rows of the source `none`, if any, are where all begin.
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
    """The patterns themselves, [C, S, S] by name, each amplified until its strongest pixel is full.

    Grey is no change; the caption says how many times the pattern is amplified, where black is -1
    and white is 1.
    """
    images, captions = [], []
    for name, pattern in perturbations.items():
        strongest = max(float(np.abs(pattern).max()), np.finfo(np.float32).tiny)
        images.append(_picture(pattern / strongest))
        captions.append(f"{name}: {1 / strongest:.0f} times" if pattern.any() else f"{name}: none")
    title = "Universal perturbations, amplified"
    return contact_sheet(np.stack(images), captions, title, subtitle)


def perturbed_sheet(
    images: np.ndarray,
    perturbation: np.ndarray,
    own: np.ndarray,
    after: np.ndarray,
    classes: Sequence[str],
    subtitle: str,
) -> Figure:
    """Images and beside each the same one perturbed, with what the model says of both.

    `images` [M, C, S, S] and `perturbation` [C, S, S], black -1 and white 1; `own` and `after` int
    [M], the predictions. The picture clips what is blacker than black; the model saw it unclipped.
    """
    pairs = np.stack([images, images + perturbation], axis=1).reshape(-1, *images.shape[1:])
    captions = [
        text
        for first, second in zip(own, after, strict=True)
        for text in (f"says: {classes[first]}", f"perturbed: {classes[second]}")
    ]
    return contact_sheet(_picture(pairs), captions, "Images before and after", subtitle)


def _picture(values: np.ndarray) -> np.ndarray:
    """Values from -1 to 1 as uint8; what lies outside is clipped."""
    return np.round((np.clip(values, -1, 1) + 1) * 127.5).astype(np.uint8)
