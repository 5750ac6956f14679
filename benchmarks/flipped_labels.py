"""Recall and precision of the list of doubtful labels, on labels that were flipped."""

from __future__ import annotations

from collections.abc import Iterator

import click
import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.frozen_heads import FrozenFeatures
from medtl.evaluation.doubtful_labels import find_doubtful

HEADING = (
    f"{'flipped':<18}{'listed':>8}{'recall':>9}{'precision':>11}{'AUROC given':>13}{'true':>8}"
)


def flip(
    labels: np.ndarray, share: float, classes: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Gives a share of cases, drawn at random, another class; returns labels and their places."""
    places = random.choice(len(labels), round(share * len(labels)), replace=False)
    flipped = labels.copy()
    flipped[places] = (flipped[places] + random.integers(1, classes, len(places))) % classes
    return flipped, places


def rows(
    frozen: FrozenFeatures, shares: tuple[float, ...], folds: int, draws: int
) -> Iterator[str]:
    """Yields the rows of the table: the given labels, then each share, averaged over draws."""
    true, classes = frozen.dataset.labels, len(frozen.dataset.classes)
    pool = np.arange(len(true))
    for share in (0.0, *shares):
        found = []
        for seed in range(draws if share else 1):
            given, places = flip(true, share, classes, np.random.default_rng(seed))
            probabilities = frozen.out_of_fold(given, pool, folds, seed).probabilities
            listed, _ = find_doubtful(given, probabilities)
            hits = int(np.isin(listed, places).sum())
            found.append(
                [
                    len(listed),
                    hits / len(places) if share else np.nan,
                    hits / len(listed) if share and len(listed) else np.nan,
                    _auroc(given, probabilities),
                    _auroc(true, probabilities),
                ]
            )
        count, recall, precision, of_given, of_true = np.mean(found, axis=0)
        name = f"{share:.0%} ({round(share * len(true))})" if share else "none"
        yield (
            f"{name:<18}{count:>8.0f}{recall:>9.2f}{precision:>11.2f}{of_given:>13.3f}"
            f"{of_true:>8.3f}"
        )


def _auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr"))


@click.command("flipped-labels")
@click.option("--data", required=True, help="a folder or table, as of train; one label an image")
@click.option("--share", "shares", multiple=True, type=float, default=(0.05, 0.1),
              show_default=True, help="of labels to flip; may be repeated")  # fmt: skip
@click.option("--folds", default=5, show_default=True)
@click.option("--draws", default=3, show_default=True, help="of the flipped labels, a row")
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--image-size", default=224, show_default=True, help="pixels")
def flipped_labels(
    data: str,
    shares: tuple[float, ...],
    folds: int,
    draws: int,
    architecture: str,
    weights: str,
    image_size: int,
) -> None:
    """Flips labels, cross-validates linear heads, and counts flipped labels in the list.

    Labels that were doubtful before any flip count against the precision; the first row lists
    their number.
    """
    frozen = FrozenFeatures.of(data, architecture, weights, image_size)
    print(f"{len(frozen.dataset.labels)} images of {frozen.dataset.name}\n{HEADING}")
    for line in rows(frozen, shares, folds, draws):
        print(line, flush=True)
