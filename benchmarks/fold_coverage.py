"""Simulated coverage of the interval of the pooled out-of-fold AUROC.

Small data sets of patients are drawn from a large set of phantoms, whose features by a frozen
network are computed once. Each is cross-validated with solved linear heads. The long-run AUROC is
that of the heads on the patients that were not drawn: of each data set's own heads, and averaged
over all data sets.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import click
import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.confidence_intervals import mean_score
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import metric_named
from medtl.evaluation.out_of_fold import FoldPredictions
from medtl.evaluation.scored_cases import ScoredCases
from medtl.inference.out_of_distribution import layout
from medtl.settings.data import Reading
from medtl.training.linear_head import solve

SIZE = 48  # side of the phantoms in pixels
POSITIVE = "diffuse"  # against all other phantoms


@click.command("fold-coverage")
@click.option("--population", default=1200, help="patients that data sets are drawn from")
@click.option("--patients", default=60, help="patients of a data set")
@click.option("--folds", default=5)
@click.option("--trials", default=200, help="data sets")
@click.option("--features", default=20, help="principal components of the features")
@click.option("--seed", default=1)
def fold_coverage(
    population: int, patients: int, folds: int, trials: int, features: int, seed: int
) -> None:
    """Simulates the coverage of the 95 % interval of the pooled out-of-fold AUROC."""
    with tempfile.TemporaryDirectory() as root:
        write_chest_phantoms(Path(root), seed=seed, patients=population, image_size=SIZE)
        reading = Reading(positive=POSITIVE, folds=folds, holdout=0.0, duplicates="allow")
        dataset = load(str(Path(root) / "labels.csv"), SIZE, seed, reading)
        values = components(np.asarray(layout(dataset.images(np.arange(len(dataset.labels))))),
                            features)  # fmt: skip
    for line in simulate(dataset, values, patients, folds, trials, seed):
        print(line)


def simulate(
    dataset: Dataset, values: np.ndarray, patients: int, folds: int, trials: int, seed: int
) -> list[str]:
    """Returns lines with the coverage over data sets; `values` [N, F] are the features."""
    random = np.random.default_rng(seed)
    intervals: list[Interval] = []
    own: list[float] = []
    for trial in range(trials):
        interval, auroc = cross_validated(dataset, values, patients, folds, random, trial)
        intervals.append(interval)
        own.append(auroc)
    long_run = float(np.mean(own))
    low, high = (np.array([getattr(each, end) for each in intervals]) for end in ("low", "high"))
    pooled = [each.value for each in intervals]
    own_share = np.mean((low <= own) & (np.array(own) <= high))
    run_share = np.mean((low <= long_run) & (long_run <= high))
    return [
        f"{trials} data sets of {patients} patients, {folds} folds: long-run AUROC {long_run:.3f}, "
        f"mean of the pooled ones {np.mean(pooled):.3f}, mean width {np.mean(high - low):.3f}",
        f"the interval holds the long-run AUROC in {100 * run_share:.1f} %, that of its own heads "
        f"in {100 * own_share:.1f} %",
    ]


def cross_validated(
    dataset: Dataset,
    values: np.ndarray,
    patients: int,
    folds: int,
    random: np.random.Generator,
    seed: int,
) -> tuple[Interval, float]:
    """Cross-validates heads on a drawn data set.

    Returns the interval of the pooled AUROC, and the mean AUROC of the heads on all other patients.
    """
    chosen = random.choice(np.unique(dataset.groups), patients, replace=False)
    inside = np.isin(dataset.groups, chosen)
    drawn, others = np.flatnonzero(inside), np.flatnonzero(~inside)
    empty = np.empty(0, np.int64)
    part = dataclasses.replace(dataset, splits={"train": drawn, "valid": empty, "test": empty})
    cut = draw_folds(part, folds, seed)
    found, aurocs = [], []
    for number, name in enumerate(cut.names):
        train, valid, out = cut.splits(number).values()
        labels = dataset.labels
        head = solve(values[train], labels[train], values[valid], labels[valid], "none")
        calibration = Calibration.fit(head.logits(values[valid]), labels[valid])
        found.append(FoldPredictions(name, out, head.logits(values[out]), calibration))
        scored = ScoredCases.of(
            labels[others], calibration.probabilities(head.logits(values[others]))
        )
        ones = np.ones((1, len(others)))
        aurocs.append(metric_named("auroc").score(scored.weighted(ones))[0])
    indices = np.concatenate([each.indices for each in found])
    probabilities = np.concatenate([each.probabilities for each in found])
    interval = mean_score(
        dataset.labels[indices], [probabilities], dataset.groups[indices], "auroc", seed
    )
    return interval, float(np.mean(aurocs))


def components(values: np.ndarray, count: int) -> np.ndarray:
    """Returns the first principal components of features [N, F]: [N, count]."""
    centred = values - values.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    return (centred @ axes[:count].T).astype(np.float32)
