"""Ensembles of the models of folds: calibration, record, domain, evaluation, card, registration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest

from medtl.data.dataset import Dataset
from medtl.data.folds import Folds, draw_folds
from medtl.data.loading import load
from medtl.errors import ParameterError
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.out_of_fold import OutOfFold, out_of_fold
from medtl.inference.predictor import Predictor
from medtl.inference.training_record import learned_from
from medtl.networks.ensemble import Ensemble
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.pipeline.cross_validation import Member, fold_learner, fold_member
from medtl.pipeline.ensembles import ensemble_facts, ensemble_predictor, evaluate_and_log_ensemble
from medtl.pipeline.finalize import register_and_gate
from medtl.pipeline.setup import Origin
from medtl.reporting.model_card import CARD_FILE
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import load_bundle
from medtl.training.learner import TransferLearner

SIZE = 64


@dataclass(frozen=True)
class Trainings:
    """The members of two folds, and their pooled predictions."""

    learner: TransferLearner
    folds: Folds
    members: tuple[Member, ...]
    scores: OutOfFold

    def predictor(self, held_out: np.ndarray | None = None) -> Predictor:
        labels, groups = self.learner.dataset.labels, self.learner.dataset.groups
        indices, networks = self.scores.indices, [each.trained for each in self.members]
        logits = self.scores.logits
        return ensemble_predictor(
            self.learner, networks, logits, labels[indices], groups[indices], held_out
        )

    def mean_test_logits(self, predictor: Predictor) -> np.ndarray:
        """Mean logits of the members, each as a predictor of its own."""
        each = []
        for made in (member.trained for member in self.members):
            network = made.network.eval()
            alone = dataclasses.replace(predictor, network=network, tail=made.tail, members=0)
            each.append(on_test(alone, self.learner.dataset))
        assert np.ptp(each, axis=0).max() > 1e-3
        return np.mean(each, axis=0)


@pytest.fixture(scope="module")
def dataset(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), SIZE, seed=0)


@pytest.fixture
def trainings(dataset: Dataset) -> Callable[..., Trainings]:
    """`trainings(cutoff, **settings)`: small_resnet from random weights in two folds."""

    def trained(cutoff: str, **settings: object) -> Trainings:
        chosen = TrainSettings(**{"epochs": 1, "augment": "none", "holdout": 0.15, **settings})
        network = build("small_resnet", len(dataset.classes), SIZE, 0, hidden=chosen.hidden)
        preprocessing = Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE)
        backbone = Backbone("small_resnet", "random", network, preprocessing)
        learner = TransferLearner(backbone, dataset, chosen)
        folds = draw_folds(dataset, 2, seed=0)
        members = []
        for number, name in enumerate(folds.names):
            own = fold_learner(learner, folds, number)
            if chosen.transfer == "hybrid":
                made = own.train_hybrid(cutoff)
            else:
                made = own.train(cutoff, own.recipe("adam", 1e-2))
            members.append(fold_member(own, name, made))
        parts = [each.predictions for each in members]
        return Trainings(learner, folds, tuple(members), out_of_fold(dataset, parts, seed=0))

    return trained


def on_test(predictor: Predictor, dataset: Dataset) -> np.ndarray:
    return predictor.scores(dataset.images(dataset.splits["test"]))


def test_an_ensemble_has_the_mean_logits_and_what_was_fitted_out_of_fold(trainings, dataset):
    made = trainings("layer3", sensitivity=0.8)
    predictor = made.predictor()
    assert isinstance(predictor.network, Ensemble)
    assert predictor.members == 2
    expected = made.mean_test_logits(predictor)
    np.testing.assert_allclose(on_test(predictor, dataset), expected, atol=1e-4)
    labels = dataset.labels[made.scores.indices]
    fitted = Calibration.fit(made.scores.logits, labels, 0.8)
    assert predictor.temperature == fitted.temperature
    assert predictor.thresholds == tuple(fitted.thresholds)


def test_its_record_covers_all_folds_and_its_domain_the_test_images(trainings, dataset):
    made = trainings("layer3")
    predictor = made.predictor()
    assert learned_from(predictor.seen, dataset, made.folds.pool).all()
    test = dataset.splits["test"]
    assert not learned_from(predictor.seen, dataset, test).any()
    images = dataset.images(test)
    assert predictor.answer(images).in_domain.mean() > 0.8
    assert not predictor.answer(np.full_like(images, 255)).in_domain.any()


def test_linear_members_become_one_network(trainings, dataset, tmp_path: Path):
    made = trainings("head", epochs=0)
    predictor = made.predictor()
    assert not isinstance(predictor.network, Ensemble)
    assert predictor.members == 2
    expected = made.mean_test_logits(predictor)
    np.testing.assert_allclose(on_test(predictor, dataset), expected, atol=1e-4)
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    assert loaded.members == 2
    np.testing.assert_array_equal(on_test(loaded, dataset), on_test(predictor, dataset))


def test_hybrids_become_the_mean_of_their_classifiers(trainings, dataset, tmp_path: Path):
    made = trainings("fc", transfer="hybrid", classifier="logistic")
    predictor = made.predictor()
    expected = made.mean_test_logits(predictor)
    np.testing.assert_allclose(on_test(predictor, dataset), expected, atol=1e-4)
    predictor.save(tmp_path / "model")
    loaded = Predictor.load(tmp_path / "model")
    np.testing.assert_array_equal(on_test(loaded, dataset), on_test(predictor, dataset))
    assert len(loaded.tail.pipelines) == 2
    members = [each.trained for each in made.members]
    chosen = ", ".join(each.classical.setting for each in members)
    used = ensemble_facts(made.learner, members).values["optimizer"]
    assert used == f"none: logistic ({chosen}) on frozen features"


def test_members_without_a_common_layer_need_the_cases_that_one_has_not_seen(trainings, dataset):
    made = trainings("all")
    with pytest.raises(ValueError, match="held_out"):
        made.predictor()
    predictor = made.predictor(made.folds.splits(0)["test"])
    expected = made.mean_test_logits(predictor)
    np.testing.assert_allclose(on_test(predictor, dataset), expected, atol=1e-4)
    first = made.members[0].trained.network.eval()
    images = dataset.images(dataset.splits["test"][:3])
    assert predictor.features(images).shape == (3, first.fc.in_features)


@pytest.mark.slow
def test_without_a_test_split_out_of_fold_predictions_are_evaluated_and_registered(
    trainings, dataset
):
    made = trainings("layer3")
    predictor, networks = made.predictor(), [each.trained for each in made.members]
    with mlflow.start_run() as run:
        concluded = evaluate_and_log_ensemble(
            made.learner, networks, predictor, made.scores.predictions
        )
        verdict = register_and_gate(concluded, "wards", 0.95)
    assert verdict.promoted
    assert len(concluded.evaluation.cases.labels) == len(made.folds.pool)
    card = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{CARD_FILE}")
    assert "ensemble of 2 members" in card
    assert "fitted on the out-of-fold predictions of its 2 members" in card
    assert "**Out-of-fold predictions," in card
    assert "test split" not in card.replace("there is a test split", "")
    loaded = load_bundle("models:/wards@champion")
    assert loaded.members == 2
    np.testing.assert_array_equal(on_test(loaded, dataset), on_test(predictor, dataset))
    with pytest.raises(ParameterError, match="an ensemble of 2 networks"):
        Origin.of(TrainSettings(weights="models:/wards@champion"))
