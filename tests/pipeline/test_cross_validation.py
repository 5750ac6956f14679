"""Folds share one computation of the frozen part, and score as trainings of their own do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medtl.data.dataset import Dataset
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.evaluation.out_of_fold import out_of_fold
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.pipeline.cross_validation import fold_learner, fold_member
from medtl.settings.data import Reading
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner

SIZE = 48
FOLDS = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("phantoms")
    write_chest_phantoms(folder, seed=2, patients=45, image_size=SIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDTL_CACHE", str(folder / "cache"))
        return load(str(folder / "labels.csv"), SIZE, 0, Reading(folds=FOLDS))


@pytest.fixture
def learner(dataset) -> TransferLearner:
    network = build("small_resnet", len(dataset.classes), SIZE, seed=0)
    backbone = Backbone(
        "small_resnet", "random", network, Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE)
    )
    settings = TrainSettings(epochs=2, augment="none", folds=FOLDS, keep="always")
    return TransferLearner(backbone, dataset, settings)


def passes(monkeypatch) -> list[int]:
    """Counts the images of each pass through a frozen part."""
    from medtl.training.loaders import ComputedLoader

    counted, before = [], ComputedLoader.inputs

    def inputs(self, rows, epoch):
        counted.append(len(rows))
        return before(self, rows, epoch)

    monkeypatch.setattr(ComputedLoader, "inputs", inputs)
    return counted


def test_the_frozen_part_runs_once_for_all_folds(learner, dataset, monkeypatch):
    counted = passes(monkeypatch)
    folds = draw_folds(dataset, FOLDS, 0)
    for number, name in enumerate(folds.names):
        own = fold_learner(learner, folds, number)
        fold_member(own, name, own.train("layer4", own.recipe("adam", 1e-2)))
    assert sum(counted) == len(folds.pool)


def test_scores_are_those_of_trainings_of_their_own(learner, dataset):
    folds = draw_folds(dataset, FOLDS, 0)
    together = fold_learner(learner, folds, 1)
    alone = dataclasses.replace(together, pool=None, shared=None)
    members = [
        fold_member(own, "2", own.train("layer4", own.recipe("adam", 1e-2)))
        for own in (together, alone)
    ]
    one, other = (each.predictions for each in members)
    np.testing.assert_allclose(one.logits, other.logits, atol=0.01)
    assert one.calibration.temperature == pytest.approx(other.calibration.temperature, abs=0.01)
    assert [epoch.valid_auroc for epoch in members[0].trained.fit.epochs] == pytest.approx(
        [epoch.valid_auroc for epoch in members[1].trained.fit.epochs], abs=0.01
    )


def test_pooled_scores_are_of_calibrated_logits_and_apart_from_means_over_folds(learner, dataset):
    folds = draw_folds(dataset, FOLDS, 0)
    members = []
    for number, name in enumerate(folds.names):
        own = fold_learner(learner, folds, number)
        members.append(fold_member(own, name, own.train("head", own.recipe("adam", 1e-3))))
    parts = [each.predictions for each in members]
    found = out_of_fold(dataset, parts, 0)
    assert (found.indices == folds.pool).all()
    table, labels = found.table, dataset.labels[found.indices]
    names = dataset.frame["path"].iloc[found.indices]
    assert (table["path"].to_numpy() == names.to_numpy()).all()
    probabilities = table[[f"probability_{name}" for name in dataset.classes]].to_numpy()
    pooled = roc_auc_score(labels, probabilities, multi_class="ovr")
    assert found.evaluation.measures.summary["auroc"].value == pytest.approx(pooled)
    each = [
        roc_auc_score(dataset.labels[part.indices], part.probabilities, multi_class="ovr")
        for part in parts
    ]
    spread = found.spread()
    assert spread["cv_auroc_fold_mean"] == pytest.approx(np.mean(each))
    assert spread["cv_auroc_fold_std"] == pytest.approx(np.std(each, ddof=1))
    first = parts[0]
    scaled = first.logits / first.calibration.temperature
    rows = np.searchsorted(found.indices, first.indices)
    logits = table[[f"logit_{name}" for name in dataset.classes]].to_numpy()
    np.testing.assert_allclose(logits[rows], scaled, rtol=1e-6)
    assert set(table["fold"].iloc[rows]) == {first.fold}
