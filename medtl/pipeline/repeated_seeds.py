"""Repeated trainings that differ in their seed: initial head, order, augmented views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import numpy as np
import pandas as pd

from medtl.evaluation.calibration import Calibration
from medtl.evaluation.repeated_seeds import STD, SeedScores, over_seeds
from medtl.evaluation.scored_cases import DecidedCases
from medtl.evaluation.split_evaluation import RESAMPLES
from medtl.pipeline.run_logging import history, log_fit, log_halved
from medtl.pipeline.setup import Origin
from medtl.reporting.plots.training_curves import repeated_curves
from medtl.settings.training import TrainSettings
from medtl.tracking.artifacts import log_intervals, log_picture, log_table
from medtl.tracking.runs import nested_run
from medtl.training.learner import Trained, TransferLearner

FOLDER = "seeds"  # of artifacts, and prefix of metrics


@dataclass(frozen=True)
class Repeat:
    """Model of one seed, and the learner that trained it."""

    seed: int
    learner: TransferLearner
    trained: Trained


@dataclass(frozen=True)
class Repeats:
    """Models of all seeds, with their test scores.

    The first one is the result of the command, so that no test score chooses it.
    """

    models: tuple[Repeat, ...]
    scores: SeedScores

    @property
    def first(self) -> Repeat:
        """Model of the first seed."""
        return self.models[0]

    def history(self) -> pd.DataFrame:
        """Returns a row an epoch of each training: `seed`, `epoch`, metrics."""
        parts = [history(each.trained.fit).assign(seed=each.seed) for each in self.models]
        return pd.concat(parts, ignore_index=True)

    def line(self) -> str:
        """Formats the seeds and the spread of the AUROC as a line for the card."""
        named = ", ".join(str(each.seed) for each in self.models)
        return (
            f"{named}; test AUROC, mean with its interval over patients: "
            f"{self.scores.formatted('auroc')} (standard deviation); this model is that of seed "
            f"{self.first.seed}"
        )

    def summary(self) -> str:
        """Formats the scores as lines for the console."""
        last = f"model of       seed {self.first.seed}, the first of the list"
        return "\n".join([*self.scores.lines(), last])


def train_seeds(
    learner: TransferLearner,
    settings: TrainSettings,
    cutoff: str,
    fit: Callable[[TrainSettings, TransferLearner], Trained],
) -> Repeats:
    """Trains one model a seed by `fit`, each in a run nested in the active one.

    Splits are those of `learner`, whose images are decoded once. Each seed has its own initial
    head, order of images and augmented views, and where weights are random its own backbone.
    """
    origin, dataset = Origin.of(settings), learner.dataset
    models, cases = [], []
    for seed in settings.listed_seeds:
        own = dataclasses.replace(settings, seed=seed)
        backbone = origin.backbone(dataset, seed, settings.hidden)
        same = backbone.digest() == learner.backbone.digest()
        shared = learner.activation_cache if same else None
        repeat = dataclasses.replace(learner, backbone=backbone, settings=own, shared=shared)
        tags = {
            "medtl.kind": "seed",
            "medtl.architecture": backbone.architecture,
            "medtl.cutoff": cutoff,
            "medtl.data": dataset.fingerprint,
        }
        with nested_run(f"seed {seed}", tags, {"seed": seed}):
            trained = fit(own, repeat)
            log_fit(trained.fit)
            log_halved(trained.halved)
            cases.append(_tested(repeat, trained))
        models.append(Repeat(seed, repeat, trained))
    scores = over_seeds(settings.listed_seeds, cases, settings.seed, RESAMPLES)
    return Repeats(tuple(models), scores)


def log_seeds(found: Repeats) -> None:
    """Logs `seeds_METRIC` with intervals over patients, and `seeds_METRIC_std` over seeds."""
    scores = found.scores
    log_intervals({f"{FOLDER}_{name}": each for name, each in scores.means.items()})
    mlflow.log_metrics(
        {
            f"{FOLDER}_{name}{STD}": each
            for name, each in scores.spreads.items()
            if np.isfinite(each)
        }
    )
    log_table(scores.table, f"{FOLDER}/scores.csv")
    curves = found.history()
    log_table(curves, f"{FOLDER}/history.csv")
    log_picture(repeated_curves(curves, "seed"), f"{FOLDER}/learning_curves.png")


def _tested(learner: TransferLearner, trained: Trained) -> DecidedCases:
    """Predicts the test split with a calibration of the validation split."""
    dataset, test = learner.dataset, learner.dataset.splits["test"]
    sensitivity = learner.settings.sensitivity
    calibration = Calibration.fit(trained.fit.valid_logits, learner.labels("valid"), sensitivity)
    probabilities = calibration.probabilities(learner.logits(trained, "test"))
    return DecidedCases(
        dataset.labels[test],
        dataset.groups[test],
        dataset.classes,
        probabilities,
        calibration.decisions(probabilities),
    )
