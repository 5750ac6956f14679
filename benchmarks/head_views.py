"""Heads solved with and without augmented views, on small draws of data sets.

The features of all images and of their views are computed once. Each draw has its own training,
validation and test images, by patient; heads are solved as in `train` with `cutoff=head`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np

from benchmarks.in_domain import drawn
from medtl.data.loading import load
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.pipeline.setup import Origin
from medtl.settings.data import Reading
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.training.linear_head import LinearHead, better, solve, solve_with_views
from medtl.training.losses import valid_scores

SIZES = (40, 80, 150, 300, 500)  # training images


@dataclass(frozen=True)
class ViewFeatures:
    """Features of the images of a data set, and of their views.

    Attributes:
        labels: int [N].
        groups: patients, int [N].
        images: float32 [N, F].
        views: float32 [V, N, F].
    """

    labels: np.ndarray
    groups: np.ndarray
    images: np.ndarray
    views: np.ndarray

    @classmethod
    def of(cls, settings: TrainSettings) -> ViewFeatures:
        """Loads the data and passes each image and view through the frozen network."""
        origin = Origin.of(settings)
        reading = Reading(duplicates="allow", unreadable="skip")
        dataset = load(settings.data, origin.rendering, 0, reading)
        everything = dict.fromkeys(dataset.splits, np.arange(len(dataset.labels)))
        learner = TransferLearner(
            origin.backbone(dataset, 0), dataclasses.replace(dataset, splits=everything), settings
        )
        network = learner.backbone.copy()
        divided = cut(network, resolve(network, origin.architecture, "head"), learner.image_size)
        images, *views = (
            learner.features(divided, "train", view) for view in range(settings.views + 1)
        )
        return cls(dataset.labels, dataset.groups, images, np.stack(views))


@dataclass(frozen=True)
class Draw:
    """Test AUROC of one draw: without views, with them, and as validation selects."""

    without: float
    views: float
    selected: float
    takes_views: bool
    seconds: float  # of the solution on views


def draw(features: ViewFeatures, size: int, random: np.random.Generator) -> Draw:
    """Solves the heads of a draw of about `size` training images, with every class in each part."""
    labels, images = features.labels, features.images
    parts = drawn(features.groups, size, random)
    while any(len(np.unique(labels[part])) <= labels.max() for part in parts):
        parts = drawn(features.groups, size, random)
    train, valid, test = parts
    known = labels[train], images[valid], labels[valid], "none"
    plain = solve(images[train], *known)
    began = time.perf_counter()
    augmented = solve_with_views(plain, images[train], features.views[:, train], *known)
    seconds = time.perf_counter() - began
    selected = better(plain, augmented)

    def auroc(head: LinearHead) -> float:
        return valid_scores(head.logits(images[test]), labels[test])["valid_auroc"]

    return Draw(auroc(plain), auroc(augmented), auroc(selected), selected.views > 0, seconds)


def rows(
    features: ViewFeatures, sizes: tuple[int, ...], draws: int, seed: int
) -> Iterator[tuple[int, list[Draw]]]:
    """Yields the draws of each number of training images."""
    random = np.random.default_rng(seed)
    for size in sizes:
        yield size, [draw(features, size, random) for _ in range(draws)]


def line(found: list[Draw]) -> str:
    """Formats the mean AUROC without views, and the gains with 95 % intervals over the draws."""
    gains = []
    for name in ("views", "selected"):
        gain = np.array([getattr(each, name) - each.without for each in found])
        spread = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
        gains.append(
            f"{gain.mean():+.3f} ({gain.mean() - spread:+.3f} to {gain.mean() + spread:+.3f})"
        )
    taken = sum(each.takes_views for each in found)
    seconds = np.mean([each.seconds for each in found])
    without = np.mean([each.without for each in found])
    return (
        f"{without:7.3f}  {gains[0]:<26}{gains[1]:<26}{taken:>3} of {len(found):<4}{seconds:5.1f} s"
    )


@click.command("head-views")
@click.option("--data", multiple=True, required=True, help="a folder or CSV; may be repeated")
@click.option("--architecture", multiple=True, default=["mobilenet_v2"], show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--image-size", default=64, show_default=True, help="pixels")
@click.option("--size", multiple=True, type=int, default=SIZES, show_default=True)
@click.option("--draws", default=6, show_default=True, help="of each data set and size")
@click.option("--seed", default=0)
def head_views(
    data: tuple[str, ...],
    architecture: tuple[str, ...],
    weights: str,
    image_size: int,
    size: tuple[int, ...],
    draws: int,
    seed: int,
) -> None:
    """Measures the gain of solved heads by augmented views, by the number of training images.

    Prints the test AUROC without views, its gain with views and as validation selects, the draws
    in which it selects views, and the seconds that these add.
    """
    together: dict[int, list[Draw]] = {each: [] for each in size}
    for name in architecture:
        for place in data:
            settings = TrainSettings(
                data=place, architecture=name, weights=weights, image_size=image_size
            )
            features = ViewFeatures.of(settings)
            for count, found in rows(features, size, draws, seed):
                together[count] += found
                click.echo(f"{name} {place} {count:>4}  {line(found)}")
    for count, found in together.items():
        click.echo(f"all {count:>4}  {line(found)}")
