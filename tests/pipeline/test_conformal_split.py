"""Prediction sets: cases that set their thresholds choose nothing else, and models carry them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from medtl.data.dataset import Dataset
from medtl.data.few_cases import CONFORMAL
from medtl.data.loading import load
from medtl.data.splits import drawn_part
from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.prediction_set_coverage import fit_prediction_sets
from medtl.inference.prediction_sets import VALIDATION
from medtl.inference.predictor import Predictor
from medtl.inference.training_record import TrainingRecord, learned_from
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.pretrained import Backbone
from medtl.networks.registry import build
from medtl.pipeline.conformal_split import check_patients, with_conformal_split
from medtl.pipeline.predictors import trained_predictor
from medtl.pipeline.scoring import predict_split
from medtl.serving.handler import answer_fields
from medtl.settings.search import TuneSettings
from medtl.settings.training import PretrainSettings, TrainSettings
from medtl.training.learner import TransferLearner

SIZE = 64
COVERAGE = 0.8  # 10 patients suffice


@pytest.fixture(scope="module")
def wards(small_phantoms: Path) -> Dataset:
    """Phantoms of which two of five patients validate."""
    dataset = load(str(small_phantoms), SIZE, seed=0)
    pool = np.concatenate([dataset.splits["train"], dataset.splits["valid"]])
    labels, groups = dataset.labels[pool], dataset.groups[pool]
    valid = drawn_part(labels, len(dataset.classes), groups, 0.5, np.random.default_rng(0))
    splits = {"train": pool[~valid], "valid": pool[valid], "test": dataset.splits["test"]}
    return dataclasses.replace(dataset, splits=splits)


@pytest.fixture(scope="module")
def parted(wards: Dataset) -> Dataset:
    return with_conformal_split(wards, COVERAGE, seed=0)


@pytest.fixture(scope="module")
def predictor(parted: Dataset) -> Predictor:
    network = build("small_resnet", len(parted.classes), SIZE, seed=0)
    given = Preprocessing((0.5,) * 3, (0.25,) * 3, SIZE)
    settings = TrainSettings(coverage=COVERAGE, keep="never")
    learner = TransferLearner(Backbone("small_resnet", "random", network, given), parted, settings)
    return trained_predictor(learner, learner.train("head", learner.recipe("adam", 1e-3)))


def test_half_of_validation_is_set_aside_by_patient(wards: Dataset, parted: Dataset):
    valid, apart = parted.splits["valid"], parted.splits[CONFORMAL]
    assert set(valid) | set(apart) == set(wards.splits["valid"])
    assert not set(parted.groups[valid]) & set(parted.groups[apart])
    assert set(parted.labels[valid]) == set(parted.labels[apart]) == {0, 1, 2}
    assert len(apart) / len(wards.splits["valid"]) == pytest.approx(0.5, abs=0.1)
    for name in ("train", "test"):
        np.testing.assert_array_equal(parted.splits[name], wards.splits[name])
    assert (parted.fingerprint, parted.identity) == (wards.fingerprint, wards.identity)
    count = f"{len(apart)} of {len(wards.splits['valid'])} images of validation"
    assert any(note.startswith(count) for note in parted.notes)
    assert any(note.startswith("few to set the thresholds") for note in parted.notes)


def test_a_part_that_is_too_small_is_refused_with_the_number_that_it_needs(wards: Dataset):
    with pytest.raises(MedtlError, match=r"coverage=0\.95 needs 40 patients .* set aside"):
        with_conformal_split(wards, 0.95, seed=0)
    with pytest.raises(MedtlError, match=r"coverage=0\.99 needs 200 patients"):
        check_patients(wards, 0.99)
    check_patients(wards, COVERAGE)


@pytest.mark.parametrize("value", [0.2, 1.0, -0.1])
def test_coverage_is_zero_or_a_share_of_most(value: float):
    with pytest.raises(ParameterError, match="coverage"):
        TrainSettings(coverage=value)
    with pytest.raises(ParameterError, match="not served"):
        PretrainSettings(coverage=0.9)
    # out-of-fold cases of a search have chosen the trial
    with pytest.raises(ParameterError, match="whose cases choose the trial"):
        TuneSettings(coverage=0.9, folds=5)


def test_thresholds_are_set_on_this_part_alone_which_the_model_records(
    parted: Dataset, predictor: Predictor
):
    apart = parted.splits[CONFORMAL]
    logits = predictor.scores(parted.images(apart))
    probabilities = predictor.probabilities(logits, predictor.temperature)
    expected = fit_prediction_sets(
        parted.labels[apart], probabilities, parted.groups[apart], COVERAGE, 0, VALIDATION
    )
    assert predictor.sets is not None
    np.testing.assert_allclose(predictor.sets.thresholds, expected.thresholds, atol=1e-6)
    assert learned_from([TrainingRecord.of(parted)], parted, apart).all()


def test_sets_are_in_evaluations_and_answers_and_are_stored(
    parted: Dataset, predictor: Predictor, tmp_path: Path
):
    test, classes = parted.splits["test"], parted.classes
    predictions = predict_split(predictor, parted, "test", ClassMapping.same(classes))
    answers = predictor.answer(parted.images(test))
    assert predictor.sets is not None
    for place in range(len(test)):
        names = answer_fields(answers, place, predictor)["prediction_set"]
        inside = np.flatnonzero(predictions.sets[place])
        assert sorted(names) == sorted(classes[each] for each in inside)
        assert names[0] == classes[answers.labels[place]]
    # of two classes that mean one label, either puts it into the set
    joined = ClassMapping(("a", "b"), ((0, 2), (1,)))
    merged = predict_split(predictor, parted, "test", joined).sets
    np.testing.assert_array_equal(merged[:, 0], predictions.sets[:, [0, 2]].any(axis=1))

    predictor.save(tmp_path)
    assert Predictor.load(tmp_path).sets == predictor.sets
    without = dataclasses.replace(predictor, sets=None)
    assert answer_fields(answers, 0, without)["prediction_set"] is None
    # a model of a release without sets
    stored = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "checksums.json").unlink()
    for name in ("sets", "ordinal"):
        del stored[name]
    (tmp_path / "model.json").write_text(json.dumps(stored))
    assert Predictor.load(tmp_path).sets is None
