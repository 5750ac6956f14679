"""False positive and detection rates of the `in_domain` flag.

Small training sets are drawn from a data set by patient. Held-out images of the same data set
should be in domain; their inverted and cropped copies and natural images should not. The network is
a published pretrained one, since a small training changes little of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import click
import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.data.sources.natural_images import natural_images
from medtl.evaluation.ood_detection import cropped, inverted
from medtl.inference.out_of_distribution import DomainReference, Sample
from medtl.inference.predictor import Predictor
from medtl.networks.pretrained import load_weights
from medtl.networks.registry import build
from medtl.settings.data import Reading
from medtl.training.loaders import PASS_BATCH

SIZES = (60, 120, 500)  # training images
VALID_SHARE = 0.15 / 0.7  # validation to training images, as in the default splits
COPIES = 300  # images to make out-of-domain copies of
TESTED = 400
FAMILIAR_SHARE = 0.99

Features = Mapping[str, np.ndarray]


def quantile_of_valid(train: Features, valid: Features) -> DomainReference:
    """Fits a reference whose limits are plain quantiles of the validation images."""
    samples = {name: Sample(each.astype(np.float16), np.inf) for name, each in train.items()}
    alone = {
        name: Sample(
            sample.features, float(np.quantile(sample.distance(valid[name]), FAMILIAR_SHARE))
        )
        for name, sample in samples.items()
    }
    together = float(np.quantile(DomainReference(alone).distance(valid), FAMILIAR_SHARE))
    return DomainReference(
        {name: Sample(each.features, each.threshold * together) for name, each in alone.items()}
    )


def untrained(architecture: str, weights: str, side: int) -> Predictor:
    """Wraps the published network in a bundle, for its features only."""
    network = build(architecture, 2, side, seed=0)
    expected = load_weights(network, architecture, weights).preprocessing
    return Predictor(
        architecture=architecture,
        classes=("a", "b"),
        preprocessing=dataclasses.replace(expected, image_size=side),
        weights=weights,
        cutoff="head",
        data="",
        fingerprint="",
        temperature=1.0,
        thresholds=(0.5, 0.5),
        network=network.eval(),
    )


def features_of(
    bundle: Predictor, images: Callable[[np.ndarray], np.ndarray], count: int
) -> Features:
    """Computes the features of `count` images, loaded by index with `images`."""
    parts = [
        bundle.compared(images(np.arange(start, min(start + PASS_BATCH, count))))
        for start in range(0, count, PASS_BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def drawn(groups: np.ndarray, size: int, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Draws training, validation and held-out images, in whole groups."""
    order = np.concatenate(
        [np.flatnonzero(groups == g) for g in random.permutation(np.unique(groups))]
    )
    begins = np.flatnonzero(np.diff(groups[order], prepend=-1))
    ends = [
        begins[min(int(np.searchsorted(begins, end)), len(begins) - 1)]
        for end in (size, round(size * (1 + VALID_SHARE)))
    ]
    train, valid, others = np.split(order, ends)
    return train, valid, others[:TESTED]


def measured(
    own: Features,
    groups: np.ndarray,
    strange: Mapping[str, Features],
    size: int,
    draws: int,
    random: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Measures the flagged share by rule and kind of image, and the expected share."""
    found: dict[str, list[list[float]]] = {"quantile": [], "rank": []}
    for _ in range(draws):
        places = drawn(groups, size, random)
        train, valid, test = ({n: f[place] for n, f in own.items()} for place in places)
        ranked = DomainReference.fit(train, valid, 0, *(groups[place] for place in places[:2]))
        for rule, reference in (("quantile", quantile_of_valid(train, valid)), ("rank", ranked)):
            shares = [1 - reference.inside(each).mean() for each in (test, *strange.values())]
            found[rule].append([*shares, reference.expected or 1 - FAMILIAR_SHARE])
    return {rule: np.mean(rows, axis=0) for rule, rows in found.items()}


@click.command("in-domain")
@click.option("--data", multiple=True, required=True, help="a folder or CSV; may be repeated")
@click.option("--natural", required=True, help="folder of images out of domain for every model")
@click.option("--architecture", multiple=True, default=["squeezenet1_0"], show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--image-size", default=96, show_default=True, help="pixels")
@click.option("--draws", default=12, show_default=True, help="trainings a row")
@click.option("--seed", default=0)
def in_domain(
    data: tuple[str, ...],
    natural: str,
    architecture: tuple[str, ...],
    weights: str,
    image_size: int,
    draws: int,
    seed: int,
) -> None:
    """Measures the share of flagged images: own, transformed and natural ones.

    Compares two limits: the 99th percentile of the validation images, and the conformal rank.
    """
    kinds = ("own", "inverted", "cropped", "natural")
    print(f"{'':<48}" + "".join(f"{kind:>10}" for kind in kinds) + f"{'own, as said':>14}")
    others = natural_images(natural, COPIES, image_size, 3, seed, "skip")
    for source in data:
        dataset = load(source, image_size, seed, Reading(duplicates="allow", unreadable="skip"))
        for name in architecture:
            bundle = untrained(name, weights, image_size)
            own, strange = _features(bundle, dataset, others)
            for size in SIZES:
                random = np.random.default_rng(seed)
                rows = measured(own, dataset.groups, strange, size, draws, random)
                for rule, shares in rows.items():
                    cells = "".join(f"{100 * share:>8.1f} %" for share in shares[:-1])
                    print(
                        f"{dataset.name:<14}{name:<16}{size:>6} {rule:<11}{cells}"
                        f"{100 * shares[-1]:>12.1f} %",
                        flush=True,
                    )


def _features(
    bundle: Predictor, dataset: Dataset, others: np.ndarray
) -> tuple[Features, dict[str, Features]]:
    """Computes features of all images of a data set, and of out-of-domain ones by kind."""
    own = features_of(bundle, dataset.images, len(dataset.labels))
    copied = min(COPIES, len(dataset.labels))
    strange = {
        "inverted": features_of(bundle, lambda place: inverted(dataset.images(place)), copied),
        "cropped": features_of(bundle, lambda place: cropped(dataset.images(place)), copied),
        "natural": features_of(bundle, lambda place: others[place], len(others)),
    }
    return own, strange
