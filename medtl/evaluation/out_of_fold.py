"""Out-of-fold scores: each case tested once, by the model that has not seen it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.evaluation.calibration import Calibration
from medtl.evaluation.metrics import headline_metrics, scores
from medtl.evaluation.prediction_set_coverage import cross_conformal_sets, fit_prediction_sets
from medtl.evaluation.scored_cases import ScoredCases
from medtl.evaluation.split_evaluation import SplitEvaluation, SplitPredictions, evaluate_split
from medtl.inference.decisions import calibrated, presence
from medtl.inference.prediction_sets import OUT_OF_FOLD

SPLIT = "cv"  # name of the pooled predictions, and prefix of their metrics
FACTS = ("fold", "images", "patients", "temperature")  # columns before the metrics of a fold
MEAN, STD = "_fold_mean", "_fold_std"  # suffixes of metrics over folds


@dataclass(frozen=True)
class FoldPredictions:
    """Output of the model of one fold for the N cases that it tests.

    Attributes:
        fold: name of the fold.
        indices: int64 [N], samples of the data set.
        logits: float32 [N, K].
        calibration: temperature and thresholds, from the fold's validation part.
    """

    fold: str
    indices: np.ndarray
    logits: np.ndarray
    calibration: Calibration

    @property
    def calibrated_logits(self) -> np.ndarray:
        """Logits divided by the fold's temperature: float64 [N, K]."""
        return self.logits.astype(np.float64) / self.calibration.temperature

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities: float64 [N, K]."""
        return self.calibration.probabilities(self.logits)

    @property
    def decisions(self) -> np.ndarray:
        """Decisions at the fold's operating point: int64 [N], of findings bool [N, K]."""
        return self.calibration.decisions(self.probabilities)


@dataclass(frozen=True)
class OutOfFold:
    """Pooled out-of-fold scores of N cases, and their spread over K folds.

    Before pooling, the logits of each fold are divided by the temperature of its own validation
    part, and decided at its own operating point: scores of different models are then on one scale.

    Attributes:
        logits: float32 [N, K], as trained: not divided by a temperature.
        predictions: calibrated probabilities and decisions, in the order of the samples.
        evaluation: metrics of the pooled scores with intervals over patients.
        folds: a row a fold, see `fold_table`.
        table: a row a case: name, label, patient, decision, fold, `probability_CLASS` and
            `logit_CLASS` (calibrated).
    """

    logits: np.ndarray
    predictions: SplitPredictions
    evaluation: SplitEvaluation
    folds: pd.DataFrame
    table: pd.DataFrame

    @property
    def indices(self) -> np.ndarray:
        """Samples of the data set, int64 [N], ascending."""
        return self.predictions.indices

    def spread(self) -> dict[str, float]:
        """Returns mean and standard deviation over folds of each metric, by its MLflow name.

        The mean of the folds' AUROCs is not the AUROC of the pooled scores. Folds in which a metric
        is undefined do not count.
        """
        metrics = self.folds.drop(columns=list(FACTS))
        means, stds = metrics.mean(), metrics.std(ddof=1)
        found = {f"{SPLIT}_{name}{MEAN}": float(value) for name, value in means.items()}
        found |= {f"{SPLIT}_{name}{STD}": float(value) for name, value in stds.items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def lines(self) -> list[str]:
        """Formats mean and standard deviation over folds of the headline metrics."""
        spread, count = self.spread(), len(self.folds)
        lines = [f"over folds      (mean and standard deviation of {count} folds, not pooled)"]
        for metric in headline_metrics(self.evaluation.ordinal):
            place = f"{SPLIT}_{metric.name}"
            if f"{place}{STD}" in spread:
                value = f"{spread[place + MEAN]:.3f} ± {spread[place + STD]:.3f}"
                lines.append(f"  {metric.name.replace('_', ' '):<20}{value}")
        return lines


def out_of_fold(
    dataset: Dataset, parts: Sequence[FoldPredictions], seed: int, coverage: float = 0.0
) -> OutOfFold:
    """Pools the predictions of all folds, and evaluates them.

    `seed` draws the resamples behind the interval of the calibration error. With a `coverage` each
    case has a prediction set, by thresholds of the other folds.
    """
    indices = np.concatenate([each.indices for each in parts])
    order = np.argsort(indices, kind="stable")

    def pooled(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)[order]

    logits = pooled([each.logits for each in parts])
    scaled = pooled([each.calibrated_logits for each in parts])
    probabilities = pooled([each.probabilities for each in parts])
    uncalibrated = (presence if dataset.multi_label else calibrated)(logits, 1.0)
    predictions = SplitPredictions(
        SPLIT,
        indices[order],
        probabilities,
        uncalibrated,
        probabilities,
        pooled([each.decisions for each in parts]),
    )
    folds = pooled([np.full(len(each.indices), each.fold, object) for each in parts])
    if coverage:
        cases = dataset.labels[predictions.indices], probabilities, dataset.groups[indices[order]]
        predictions = dataclasses.replace(
            predictions,
            sets=cross_conformal_sets(*cases, folds, coverage, seed),
            rule=fit_prediction_sets(*cases, coverage, seed, OUT_OF_FOLD),
        )
    evaluation = evaluate_split(dataset, predictions, seed)
    table = evaluation.predictions.assign(fold=folds)
    for place, name in enumerate(dataset.classes):
        table[f"logit_{name}"] = scaled[:, place]
    return OutOfFold(logits, predictions, evaluation, fold_table(dataset, parts), table)


def fold_table(dataset: Dataset, parts: Sequence[FoldPredictions]) -> pd.DataFrame:
    """Returns a row a fold.

    Columns: those of `FACTS`, of the cases that it tests (images of an unknown patient count one
    patient each), and each metric of these cases alone.
    """
    rows = []
    for each in parts:
        labels = dataset.labels[each.indices]
        cases = ScoredCases.of(labels, each.probabilities, each.decisions)
        found = scores(cases, np.ones((1, len(labels))), dataset.ordinal)
        facts = (
            each.fold,
            len(labels),
            len(np.unique(dataset.patients[each.indices])),
            each.calibration.temperature,
        )
        rows.append(
            {
                **dict(zip(FACTS, facts, strict=True)),
                **{name: float(values[0]) for name, values in found.items()},
            }
        )
    return pd.DataFrame(rows)
