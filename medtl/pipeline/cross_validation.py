"""Cross-validation: one training a fold, on one computation of the frozen part."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import pandas as pd

from medtl.data.folds import Folds, draw_folds
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.doubtful_labels import DoubtfulLabels, doubtful_labels
from medtl.evaluation.out_of_fold import FoldPredictions, OutOfFold, out_of_fold
from medtl.pipeline.ensembles import ensemble_predictor, evaluate_and_log_ensemble
from medtl.pipeline.evaluation_logging import log_doubtful, log_evaluation
from medtl.pipeline.finalize import Concluded
from medtl.pipeline.run_logging import history, log_fit, log_halved
from medtl.reporting.plots.training_curves import repeated_curves
from medtl.tracking.artifacts import log_picture, log_table
from medtl.tracking.runs import nested_run
from medtl.training.learner import Trained, TransferLearner

FOLDER = "cross_validation"  # of artifacts
FOLDS_FILE = f"{FOLDER}/folds.csv"
TEST_TAG = "medtl.test"  # on a run whose test scores are not of a test split
POOLED = (
    "each case by the one of {} models that has not seen it; logits divided by the temperature of "
    "its fold's own validation part"
)
NO_TEST = "the same as the out-of-fold scores: there is no test split (holdout=0)"
OUT_OF_FOLD_FILE = f"{FOLDER}/out_of_fold.csv"


@dataclass(frozen=True)
class Member:
    """Model of one fold, with its predictions of the cases that it has not seen."""

    learner: TransferLearner
    trained: Trained
    predictions: FoldPredictions

    @property
    def fold(self) -> str:
        """Name of the fold."""
        return self.predictions.fold


@dataclass(frozen=True)
class CrossValidation:
    """K members, their pooled out-of-fold scores, and the labels that these contradict."""

    folds: Folds
    members: tuple[Member, ...]
    scores: OutOfFold
    doubtful: DoubtfulLabels

    @property
    def trained(self) -> list[Trained]:
        """Trained networks, one a fold."""
        return [each.trained for each in self.members]

    def history(self) -> pd.DataFrame:
        """Returns a row an epoch of each fold: `fold`, `epoch`, metrics."""
        parts = [(each.fold, history(each.trained.fit)) for each in self.members]
        return pd.concat([table.assign(fold=name) for name, table in parts], ignore_index=True)

    def summary(self) -> str:
        """Formats the pooled scores and their spread over folds as lines for the console."""
        pooled = dataclasses.replace(self.scores.evaluation, split="out-of-fold")
        lines = [pooled.summary(), *self.scores.lines()]
        lines.append(f"pooled        {POOLED.format(len(self.members))}")
        if not self.has_test:
            lines.append(f"test scores   {NO_TEST}")
        return "\n".join(lines)

    @property
    def has_test(self) -> bool:
        """True if a test split was held out."""
        return len(self.folds.dataset.splits["test"]) > 0


def with_folds(learner: TransferLearner) -> tuple[TransferLearner, Folds]:
    """Draws the folds of the settings, and prints how; their notes join those of the data.

    Raises:
        ParameterError: the data has other folds, or too few patients.
        MedtlError: a sample has no fold, a patient is in two, or a fold lacks a class.
    """
    dataset, settings = learner.dataset, learner.settings
    folds = draw_folds(dataset, settings.folds, settings.seed)
    for note in folds.notes:
        print(f"data {dataset.name}: {note}", file=sys.stderr)
    dataset = dataclasses.replace(dataset, notes=(*dataset.notes, *folds.notes))
    learner = dataclasses.replace(learner, dataset=dataset, shared=learner.activation_cache)
    return learner, dataclasses.replace(folds, dataset=dataset)


def fold_learner(learner: TransferLearner, folds: Folds, number: int) -> TransferLearner:
    """Returns the learner of one fold, which shares the activations of all folds."""
    shared, pool = learner.activation_cache, folds.pool
    return dataclasses.replace(learner, dataset=folds.of(number), shared=shared, pool=pool)


def fold_member(learner: TransferLearner, fold: str, trained: Trained) -> Member:
    """Predicts the cases that a fold tests, and calibrates on its validation part.

    `learner` is that of the fold (see `fold_learner`), `trained` its model.
    """
    sensitivity = learner.settings.sensitivity
    calibration = Calibration.fit(trained.fit.valid_logits, learner.labels("valid"), sensitivity)
    logits = learner.logits(trained, "test")
    indices = learner.dataset.splits["test"]
    return Member(learner, trained, FoldPredictions(fold, indices, logits, calibration))


def cross_validate(
    learner: TransferLearner,
    folds: Folds,
    cutoff: str,
    fit: Callable[[TransferLearner], Trained],
) -> CrossValidation:
    """Trains one model a fold by `fit`, each in a run nested in the active one.

    The folds and their order are those of the seed, so that an equal command repeats none of the
    finished trainings of an interrupted one, and resumes the one that it was in.
    """
    log_table(folds.table(), FOLDS_FILE)
    members = []
    for number, name in enumerate(folds.names):
        own = fold_learner(learner, folds, number)
        tags = {
            "medtl.kind": "fold",
            "medtl.fold": name,
            "medtl.architecture": learner.backbone.architecture,
            "medtl.cutoff": cutoff,
            "medtl.data": learner.dataset.fingerprint,
        }
        sizes = {split: len(indices) for split, indices in own.dataset.splits.items()}
        with nested_run(f"fold {name}", tags, {"fold": name, **sizes}):
            member = fold_member(own, name, fit(own))
            log_fit(member.trained.fit)
            log_halved(member.trained.halved)
            best = member.trained.fit.best
            mlflow.log_metrics(
                {
                    "best_valid_auroc": best.valid_auroc,
                    "best_epoch": best.number,
                    "temperature": member.predictions.calibration.temperature,
                }
            )
        members.append(member)
    parts = [each.predictions for each in members]
    dataset, settings = learner.dataset, learner.settings
    scores = out_of_fold(dataset, parts, settings.seed, settings.coverage)
    doubtful = doubtful_labels(dataset, scores.indices, scores.evaluation.cases, settings.seed)
    evaluation = dataclasses.replace(scores.evaluation, without_doubtful=doubtful.scores)
    scores = dataclasses.replace(scores, evaluation=evaluation)
    return CrossValidation(folds, tuple(members), scores, doubtful)


def log_cross_validation(found: CrossValidation) -> None:
    """Logs pooled scores as `cv_METRIC` with intervals, their spread over folds, and tables."""
    log_evaluation(found.scores.evaluation)
    log_doubtful(found.doubtful)
    mlflow.log_metrics(found.scores.spread())
    log_table(found.scores.table, OUT_OF_FOLD_FILE)
    log_table(found.scores.folds, f"{FOLDER}/per_fold.csv")
    curves = found.history()
    log_table(curves, f"{FOLDER}/history.csv")
    log_picture(repeated_curves(curves, "fold"), f"{FOLDER}/learning_curves.png")


def evaluate_ensemble(learner: TransferLearner, found: CrossValidation) -> Concluded:
    """Evaluates the ensemble of the members once on the test split, and logs results and model.

    Without a test split the out-of-fold scores are the test scores, which a tag says.
    """
    scores, dataset = found.scores, learner.dataset
    predictor = ensemble_predictor(
        learner,
        found.trained,
        scores.logits,
        dataset.labels[scores.indices],
        dataset.groups[scores.indices],
        found.folds.splits(0)["test"],
    )
    predictor = dataclasses.replace(predictor, sets=scores.predictions.rule)
    if found.has_test:
        return evaluate_and_log_ensemble(learner, found.trained, predictor)
    mlflow.set_tag(TEST_TAG, "out-of-fold")
    out_of_fold = dataclasses.replace(scores.predictions, split="test")
    return evaluate_and_log_ensemble(learner, found.trained, predictor, out_of_fold)
