"""Benchmarks of doubtful labels, prediction sets and heads on views, on made-up features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.flipped_labels import flip, rows
from benchmarks.frozen_heads import FrozenFeatures
from benchmarks.head_views import ViewFeatures
from benchmarks.head_views import line as view_line
from benchmarks.head_views import rows as view_rows
from benchmarks.prediction_sets import lines
from medtl.data.loading import load


@pytest.fixture(scope="module")
def frozen(small_phantoms: Path) -> FrozenFeatures:
    dataset = load(str(small_phantoms), 64, seed=0)
    noise = np.random.default_rng(0).normal(size=(len(dataset.labels), 6))
    return FrozenFeatures(dataset, (noise + 3 * np.eye(6)[dataset.labels]).astype(np.float32))


def test_a_share_of_labels_gets_another_class():
    labels = np.arange(200) % 3
    flipped, places = flip(labels, 0.1, 3, np.random.default_rng(0))
    assert len(places) == 20
    assert set(np.flatnonzero(flipped != labels)) == set(places)


def test_flipped_labels_are_counted_in_the_list(frozen: FrozenFeatures):
    none, tenth = rows(frozen, (0.1,), folds=3, draws=1)
    assert none.split()[:1] == ["none"]
    *_, listed, recall, precision, _, _ = tenth.split()
    assert tenth.startswith("10% (17)")
    assert int(listed) > 10
    assert float(recall) > 0.7
    assert float(precision) > 0.5


def test_coverage_is_measured_for_both_origins_of_thresholds(frozen: FrozenFeatures):
    *each, by_validation, by_folds = lines(frozen, 0.6, folds=3, seeds=2)
    assert len(each) == 4
    for line, source in ((by_validation, "validation"), (by_folds, "out-of-fold")):
        name, origin, covered, *_ = line.split()
        assert (name, origin) == ("mean", source)
        assert float(covered) > 0.6


def test_the_gain_by_views_is_measured_beside_heads_without():
    random, labels = np.random.default_rng(0), np.arange(240) % 3
    noise = random.normal(size=(5, 240, 12))
    images, *views = (3 * noise + 3 * np.eye(12)[labels]).astype(np.float32)
    features = ViewFeatures(labels, np.arange(240), images, np.stack(views))
    ((size, draws),) = view_rows(features, (30,), 3, seed=0)
    assert size == 30
    assert np.mean([each.views - each.without for each in draws]) > 0.05
    assert all(each.selected in (each.views, each.without) for each in draws)
    assert view_line(draws).split()[1].startswith("+0.")
