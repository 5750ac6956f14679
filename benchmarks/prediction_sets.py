"""Measured coverage of prediction sets on test splits, over several draws of the splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click
import numpy as np

from benchmarks.frozen_heads import FrozenFeatures
from medtl.data.dataset import Dataset
from medtl.data.few_cases import CONFORMAL
from medtl.data.splits import drawn_part
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.prediction_set_coverage import (
    COVERAGE,
    SINGLETONS,
    SIZE,
    SetCoverage,
    fit_prediction_sets,
    set_coverage,
)
from medtl.inference.prediction_sets import OUT_OF_FOLD, VALIDATION
from medtl.pipeline.conformal_split import with_conformal_split
from medtl.settings.data import CARVED

HEADING = f"{'seed':<6}{'thresholds on':<15}{'coverage':>26}{'least of a class':>18}{'size':>8}{'of one':>8}"  # noqa: E501


def redrawn(dataset: Dataset, seed: int) -> Dataset:
    """Returns the data set with splits drawn anew, by patient, of the usual shares."""
    left, splits = np.arange(len(dataset.labels)), {}
    for number, name in enumerate(("test", "valid")):
        share = CARVED * len(dataset.labels) / len(left)
        taken = drawn_part(
            dataset.labels[left],
            len(dataset.classes),
            dataset.groups[left],
            share,
            np.random.default_rng([seed, number]),
        )
        splits[name], left = left[taken], left[~taken]
    return dataclasses.replace(dataset, splits={"train": left, **splits}, notes=())


def by_validation(frozen: FrozenFeatures, coverage: float, seed: int) -> SetCoverage:
    """Measures sets whose thresholds are set on a part of validation, as without folds."""
    dataset = with_conformal_split(redrawn(frozen.dataset, seed), coverage, seed)
    labels, (train, valid, cases, test) = dataset.labels, (
        dataset.splits[name] for name in ("train", "valid", CONFORMAL, "test")
    )  # fmt: skip
    head = frozen.head(labels, train, valid)
    logits = head.logits(frozen.features)
    found = Calibration.fit(logits[valid], labels[valid]).probabilities(logits)
    rule = fit_prediction_sets(
        labels[cases], found[cases], dataset.groups[cases], coverage, seed, VALIDATION
    )
    members = rule.members(found[test])
    groups = dataset.groups[test]
    return set_coverage(members, labels[test], groups, dataset.classes, rule, seed)


def by_folds(frozen: FrozenFeatures, coverage: float, folds: int, seed: int) -> SetCoverage:
    """Measures sets of the ensemble, whose thresholds are set on out-of-fold predictions."""
    dataset = redrawn(frozen.dataset, seed)
    labels, test = dataset.labels, dataset.splits["test"]
    pool = np.sort(np.concatenate([dataset.splits["train"], dataset.splits["valid"]]))
    own = frozen.out_of_fold(labels, pool, folds, seed)
    rule = fit_prediction_sets(
        labels[pool], own.probabilities, dataset.groups[pool], coverage, seed, OUT_OF_FOLD
    )
    calibration = Calibration.fit(own.logits, labels[pool])
    found = calibration.probabilities(own.ensemble(frozen.features[test]))
    groups = dataset.groups[test]
    return set_coverage(rule.members(found), labels[test], groups, dataset.classes, rule, seed)


def lines(frozen: FrozenFeatures, coverage: float, folds: int, seeds: int) -> Iterator[str]:
    """Yields a row a seed and origin of the thresholds, then the means over seeds."""
    means: dict[str, list[list[float]]] = {VALIDATION: [], OUT_OF_FOLD: []}
    for seed in range(seeds):
        for source, found in (
            (VALIDATION, by_validation(frozen, coverage, seed)),
            (OUT_OF_FOLD, by_folds(frozen, coverage, folds, seed)),
        ):
            least = float(found.per_class[COVERAGE].min())
            size, alone = found.summary[SIZE].value, found.summary[SINGLETONS].value
            means[source].append([found.summary[COVERAGE].value, least, size, alone])
            note = "" if found.rule.by_class else "  (one threshold for all classes)"
            yield (
                f"{seed:<6}{source:<15}{found.summary[COVERAGE]!s:>26}{least:>18.3f}{size:>8.2f}"
                f"{alone:>8.0%}{note}"
            )
    for source, rows in means.items():
        covered, least, size, alone = np.mean(rows, axis=0)
        spread = np.std([row[0] for row in rows], ddof=1) if len(rows) > 1 else np.nan
        text = f"{covered:.3f} (SD {spread:.3f})"
        yield f"{'mean':<6}{source:<15}{text:>26}{least:>18.3f}{size:>8.2f}{alone:>8.0%}"


@click.command("prediction-sets")
@click.option("--data", required=True, help="a folder or table, as of train; one label an image")
@click.option("--coverage", default=0.9, show_default=True)
@click.option("--folds", default=5, show_default=True)
@click.option("--seeds", default=10, show_default=True, help="draws of the splits")
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--image-size", default=224, show_default=True, help="pixels")
def prediction_sets(
    data: str,
    coverage: float,
    folds: int,
    seeds: int,
    architecture: str,
    weights: str,
    image_size: int,
) -> None:
    """Measures the coverage of prediction sets of linear heads on redrawn test splits."""
    frozen = FrozenFeatures.of(data, architecture, weights, image_size)
    print(f"{len(frozen.dataset.labels)} images of {frozen.dataset.name}\n{HEADING}")
    for line in lines(frozen, coverage, folds, seeds):
        print(line, flush=True)
