"""Evaluation of a model on one split: scores with intervals, tables and examples.

It computes; `medtl.pipeline.evaluation_logging` logs it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.evaluation.calibration import (
    calibration_gain,
    finding_counts,
    presence_reliability,
    reliability_table,
)
from medtl.evaluation.confidence_intervals import Measures, Sampling, measured
from medtl.evaluation.decision_curve import decision_curve
from medtl.evaluation.delong import with_delong
from medtl.evaluation.doubtful_labels import ScoresWithoutDoubtful
from medtl.evaluation.example_selection import worst_finding_mistakes, worst_mistakes
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import headline_metrics
from medtl.evaluation.prediction_set_coverage import SetCoverage, set_coverage
from medtl.evaluation.scored_cases import DecidedCases, ScoredCases, has_findings
from medtl.evaluation.scores_without_duplicates import (
    ScoresWithoutDuplicates,
    scores_without_duplicates,
)
from medtl.inference.decisions import findings_text
from medtl.inference.grad_cam import side_by_side
from medtl.inference.prediction_sets import PredictionSets
from medtl.label_syntax import BETWEEN

RESAMPLES = 2000  # of the calibration error
AS_TRAINED, CALIBRATED = "as trained", "calibrated"


@dataclass(frozen=True)
class SplitPredictions:
    """Output of a model for the N images of a split.

    Attributes:
        split: name of the split, or `all`.
        indices: int64 [N], samples of the data set.
        of_model: [N, J], calibrated probabilities of the model's classes.
        uncalibrated: [N, K], probabilities of the data's labels at temperature 1.
        probabilities: [N, K], calibrated.
        decisions: int64 [N], at the operating point; of findings bool [N, K].
        sets: bool [N, K], prediction sets; None if the model has none.
        rule: thresholds of the sets.
    """

    split: str
    indices: np.ndarray
    of_model: np.ndarray
    uncalibrated: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    sets: np.ndarray | None = None
    rule: PredictionSets | None = None


@dataclass(frozen=True)
class SplitEvaluation:
    """Results of a model on one split.

    Attributes:
        split: name of the split, or `all`.
        unit: sampling unit of intervals, see `Dataset.unit`.
        positive: class that metrics of two classes are of, else ''.
        multi_label: True if labels are findings.
        ordinal: True if classes are in an order, such as grades.
        cases: labels, probabilities and decisions.
        measures: metrics with intervals; `per_class` has DeLong's interval, too.
        calibration: errors of the probabilities before and after calibration.
        curve: net benefit by threshold.
        reliability: table by `AS_TRAINED`, `CALIBRATED`.
        counts: decisions on each finding; None for classes.
        predictions: a row an image: name, label, patient, decision, probabilities.
        mistakes: a row for each of the most confidently wrong decisions, `image` its name.
        mistaken_images: [M, C, H, W], stored pixels of its rows.
        without_duplicates: scores without copies of training images; None if there is none.
        without_doubtful: scores without doubtful labels; None if none were looked for.
        sets: measured coverage of prediction sets; None if the model has none.
    """

    split: str
    unit: str
    positive: str
    multi_label: bool
    ordinal: bool
    cases: DecidedCases
    measures: Measures
    calibration: pd.DataFrame
    curve: pd.DataFrame
    reliability: Mapping[str, pd.DataFrame]
    counts: pd.DataFrame | None
    predictions: pd.DataFrame
    mistakes: pd.DataFrame
    mistaken_images: np.ndarray
    without_duplicates: ScoresWithoutDuplicates | None
    without_doubtful: ScoresWithoutDoubtful | None = None
    sets: SetCoverage | None = None

    def confusion(self) -> pd.DataFrame:
        """Counts cases by class (`actual`, a row each) and decision (a column each), in order."""
        actual, decided = (
            pd.Categorical.from_codes(codes, list(self.cases.classes))
            for codes in (self.cases.labels, self.cases.decisions)
        )
        counts = pd.crosstab(actual, decided, dropna=False)
        counts.insert(0, "actual", counts.index.to_numpy())
        return counts.reset_index(drop=True)

    @property
    def ece_as_trained(self) -> Interval:
        """Calibration error before calibration."""
        row = self.calibration.set_index("probabilities").loc[AS_TRAINED]
        return Interval(row["ece"], row["ece_low"], row["ece_high"])

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the console and the card."""
        return tuple(line for _, line in self._remarks())

    def _remarks(self) -> Iterator[tuple[str, str]]:
        """Yields lines beside the scores, each with its heading on the console."""
        if self.without_duplicates is not None:
            yield "duplicates", self.without_duplicates.line()
        if self.without_doubtful is not None:
            yield "labels", self.without_doubtful.line()
        if self.sets is not None:
            yield "sets", self.sets.line()

    def summary(self) -> str:
        """Formats the headline scores as lines for the console."""
        of = f", of the class {self.positive}" if self.positive else ""
        findings = len(self.cases.classes)
        means = f", means over {findings} findings" if self.multi_label else ""
        images = len(self.cases.labels)
        lines = [
            f"{self.split} scores   (95 % intervals over {self.unit}, {images} images{of}{means})"
        ]
        for metric in headline_metrics(self.ordinal):
            name = metric.name.replace("_", " ")
            lines.append(f"  {name:<20}{self.measures.summary[metric.name]}")
        lines += [f"{heading:<14}{line}" for heading, line in self._remarks()]
        return "\n".join(lines)


def evaluate_split(dataset: Dataset, predictions: SplitPredictions, seed: int) -> SplitEvaluation:
    """Computes everything that is reported of a model on a split.

    `seed` draws the resamples behind the interval of the calibration error.
    """
    indices, classes = predictions.indices, dataset.classes
    cases = DecidedCases(
        dataset.labels[indices],
        dataset.groups[indices],
        classes,
        predictions.probabilities,
        predictions.decisions,
    )
    scored = cases.scored()
    as_trained = ScoredCases.of(cases.labels, predictions.uncalibrated)
    sampling = Sampling.of(cases.labels, cases.groups, len(classes), seed, RESAMPLES)
    measures = measured(sampling, scored, classes, dataset.ordinal)
    per_class = with_delong(measures.per_class, cases.labels, cases.probabilities, cases.groups)
    mistakes, places = _mistakes(cases)
    return SplitEvaluation(
        split=predictions.split,
        unit=dataset.unit,
        positive=dataset.positive,
        multi_label=dataset.multi_label,
        ordinal=dataset.ordinal,
        cases=cases,
        measures=dataclasses.replace(measures, per_class=per_class),
        calibration=calibration_gain(sampling, as_trained, scored),
        curve=decision_curve(cases.labels, cases.probabilities, classes),
        reliability={
            AS_TRAINED: _reliability(cases, predictions.uncalibrated),
            CALIBRATED: _reliability(cases, predictions.probabilities),
        },
        counts=finding_counts(cases.labels, cases.decisions, classes)
        if dataset.multi_label
        else None,
        predictions=_table(dataset, predictions),
        mistakes=mistakes.assign(
            image=dataset.frame[dataset.naming].iloc[indices[places]].to_numpy()
        ),
        mistaken_images=side_by_side(dataset.images(indices[places])),
        without_duplicates=scores_without_duplicates(dataset, cases, seed)
        if predictions.split == "test"
        else None,
        sets=None
        if predictions.sets is None or predictions.rule is None
        else set_coverage(
            predictions.sets, cases.labels, cases.groups, classes, predictions.rule, seed
        ),
    )


def _reliability(cases: DecidedCases, probabilities: np.ndarray) -> pd.DataFrame:
    if has_findings(cases.labels):
        return presence_reliability(cases.labels, probabilities, cases.classes)
    return reliability_table(cases.labels, probabilities)


def _mistakes(cases: DecidedCases) -> tuple[pd.DataFrame, np.ndarray]:
    """Returns the worst mistakes, a row each, and the places of their cases.

    Columns for classes: `actual`, `actual_probability`, `decided`, `decided_probability`; for
    findings: `finding`, `called` and `probability`.
    """
    names = np.array(cases.classes)
    if has_findings(cases.labels):
        places, about = worst_finding_mistakes(cases.labels, cases.decisions, cases.probabilities)
        columns = {
            "finding": names[about],
            "called": cases.decisions[places, about],
            "probability": cases.probabilities[places, about],
        }
        return pd.DataFrame(columns), places
    places = worst_mistakes(cases.labels, cases.decisions, cases.probabilities)
    actual, decided = cases.labels[places], cases.decisions[places]
    columns = {
        "actual": names[actual],
        "actual_probability": cases.probabilities[places, actual],
        "decided": names[decided],
        "decided_probability": cases.probabilities[places, decided],
    }
    return pd.DataFrame(columns), places


def _table(dataset: Dataset, predictions: SplitPredictions) -> pd.DataFrame:
    named = dataset.frame.iloc[predictions.indices][[dataset.naming, "label", "patient"]]
    table = named.reset_index(drop=True)
    if dataset.multi_label:
        table["decision"] = [findings_text(each, dataset.classes) for each in predictions.decisions]
    else:
        table["decision"] = [dataset.classes[index] for index in predictions.decisions]
    for index, name in enumerate(dataset.classes):
        table[f"probability_{name}"] = predictions.probabilities[:, index]
    if predictions.sets is not None:
        names = np.array(dataset.classes, object)
        table["prediction_set"] = [BETWEEN.join(names[inside]) for inside in predictions.sets]
    return table
