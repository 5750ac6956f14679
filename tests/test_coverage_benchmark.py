"""Coverage benchmarks: one row per metric; shares of data sets for folds."""

from __future__ import annotations

import numpy as np

from benchmarks import coverage, fold_coverage
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.evaluation.metrics import overall_metrics
from medtl.settings.data import Reading


def test_a_row_a_metric(monkeypatch):
    monkeypatch.setattr(coverage, "LARGE", 500)
    monkeypatch.setattr(coverage, "RESAMPLES", 20)
    population = coverage.Population(0.87, 0.9, 0.5, 0.7, 1.0)
    heading, *rows = coverage.simulate(population, (12,), trials=2, seed=0)
    assert heading.startswith("12 patients")
    assert [row.split()[0] for row in rows] == [each.name for each in overall_metrics()]


def test_a_small_simulation_of_folds(tmp_path):
    write_chest_phantoms(tmp_path, seed=0, patients=60, image_size=32)
    reading = Reading(positive="focal", folds=3, holdout=0.0, duplicates="allow")
    dataset = load(str(tmp_path / "labels.csv"), 32, 0, reading)
    values = np.random.default_rng(0).normal(size=(len(dataset.labels), 5)).astype(np.float32)
    values[:, 0] += 2 * dataset.labels
    heading, shares = fold_coverage.simulate(dataset, values, 30, 3, trials=2, seed=0)
    assert heading.startswith("2 data sets of 30 patients, 3 folds: long-run AUROC 0.")
    assert shares.startswith("the interval holds the long-run AUROC in ")
