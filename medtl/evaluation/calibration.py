"""Temperature scaling, operating points and reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from medtl.evaluation.confidence_intervals import Sampling, wilson
from medtl.evaluation.jackknife import Difference, Estimate, Interval, difference
from medtl.evaluation.metrics import overall_metrics
from medtl.evaluation.scored_cases import (
    CALIBRATION_BINS,
    Ranking,
    ScoredCases,
    calibration_bin,
    checked,
    has_findings,
    labelled_cases,
)
from medtl.inference.decisions import calibrated, decide, decide_findings, presence

# Range of temperatures; those of trained networks lie between 0.5 and 5.
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fits the temperature that maximises the likelihood of validation labels.

    Guo et al. 2017, arXiv 1706.04599. `logits` [N, K], `labels` int [N]. The likelihood of
    `softmax(logits / T)` is concave in 1 / T. At its maximum the logit expected under the
    probabilities equals, on average, the logit of the label. If every case is classified correctly
    there is no maximum (any lower temperature is better), and the temperature is 1.
    """
    logits = checked(logits)
    of_label = logits[np.arange(len(logits)), labels]
    if (of_label >= logits.max(axis=1)).all():
        return 1.0

    def excess(temperature: float) -> float:
        expected = (calibrated(logits, temperature) * logits).sum(axis=1)
        return float(np.mean(expected - of_label))

    return _root(excess)


@dataclass(frozen=True)
class Calibration:
    """Temperature and thresholds of a model, from cases that it was not trained on.

    Attributes:
        temperature: divisor of the logits.
        thresholds: float64 [K], operating point, see `medtl.inference.decisions.decide`.
        multi_label: True for findings.
    """

    temperature: float
    thresholds: np.ndarray
    multi_label: bool

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray, sensitivity: float = 0.0) -> Calibration:
        """Fits both to logits [N, K] and labels int [N], of findings int8 [N, K].

        `sensitivity` is the least one at the operating point; 0 for Youden's index.
        """
        multi_label = has_findings(labels)
        fitted = (fit_presence_temperature if multi_label else fit_temperature)(logits, labels)
        found = cls(fitted, np.empty(0), multi_label)
        probabilities = found.probabilities(logits)
        thresholds = (
            operating_points_at(labels, probabilities, sensitivity)
            if sensitivity
            else operating_points(labels, probabilities)
        )
        return replace(found, thresholds=thresholds)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities float64 [N, K] of logits [N, K]."""
        return (presence if self.multi_label else calibrated)(logits, self.temperature)

    def decisions(self, probabilities: np.ndarray) -> np.ndarray:
        """Decides at the operating point: int64 [N]; of findings bool [N, K]."""
        return (decide_findings if self.multi_label else decide)(probabilities, self.thresholds)


def _root(excess: Callable[[float], float]) -> float:
    """Returns the temperature at which a decreasing function is 0, or the nearest allowed one."""
    if excess(COLDEST) <= 0:
        return COLDEST
    if excess(HOTTEST) >= 0:
        return HOTTEST
    return float(brentq(excess, COLDEST, HOTTEST, xtol=1e-9))


def operating_points(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Chooses a threshold per class, float64 [K], by the highest sensitivity + specificity.

    Youden 1950. Each class is against the rest, on validation `labels` int [N] and `probabilities`
    [N, K]. With two classes the threshold of the first is one less that of the second, so that both
    give the same decision. A class without positive or negative cases has 1 / K. Findings (int8
    [N, K]) use the cases with a known label; without both kinds of cases the threshold is one half.
    """

    def highest_youden(true: np.ndarray, false: np.ndarray) -> int:
        return int(np.argmax(true / true[-1] - false / false[-1]))

    return _thresholds_where(labels, probabilities, highest_youden)


def operating_points_at(
    labels: np.ndarray, probabilities: np.ndarray, sensitivity: float
) -> np.ndarray:
    """Chooses the highest thresholds with at least `sensitivity` on the given cases.

    If a positive case that is needed has a probability of 0, so has the threshold, and every case
    is positive. Each class is taken alone: a case above two thresholds is assigned to one class, so
    that the sensitivity of `decide` may be lower for the other. Arguments as in `operating_points`.
    """

    def first_sensitive(true: np.ndarray, false: np.ndarray) -> int:
        # shares are compared, not counts: 0.55 * 100 is a little more than 55
        return int(np.argmax(true / true[-1] >= sensitivity))

    return _thresholds_where(labels, probabilities, first_sensitive)


def _thresholds_where(
    labels: np.ndarray,
    probabilities: np.ndarray,
    choose: Callable[[np.ndarray, np.ndarray], int],
) -> np.ndarray:
    """Returns thresholds float64 [K]; `choose` selects from true and false positives [G].

    A threshold lies midway between the lowest positive score and the next below, or equals the
    former if there is no number between them.
    """
    probabilities = checked(probabilities)
    classes = probabilities.shape[1]
    thresholds = np.full(classes, 0.5 if has_findings(labels) else 1 / classes)
    for index in range(classes):
        cases, positive = labelled_cases(labels, index)
        if positive.all() or not positive.any():
            continue
        scores = probabilities[cases, index]
        ranking = Ranking.of(positive, scores)
        true, false = ranking.curve()
        edges = np.append(scores[ranking.order[ranking.starts]], 0.0)
        place = choose(true, false)
        middle = (edges[place] + edges[place + 1]) / 2
        thresholds[index] = middle if middle > edges[place + 1] else edges[place]
    if classes == 2 and not has_findings(labels):
        thresholds[0] = 1 - thresholds[1]
    return thresholds


def reliability_table(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Computes the accuracy of the most probable class in 15 equal bins of its probability.

    `labels` int [N], `probabilities` [N, K]. One row per bin with cases: `from`, `to`, `cases`,
    `confidence` (mean probability), `accuracy` and its 95 % Wilson interval `low`, `high`.
    The mean of |accuracy - confidence| over cases is the expected calibration error.
    """
    probabilities = checked(probabilities)
    return binned(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def binned(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Returns the rows of `reliability_table` for `confidence` [N] and `right` bool [N]."""
    rows = []
    bins = calibration_bin(confidence)
    for index in np.unique(bins):
        inside = bins == index
        found = wilson(float(right[inside].mean()), int(inside.sum()))
        rows.append(
            {
                "from": index / CALIBRATION_BINS,
                "to": (index + 1) / CALIBRATION_BINS,
                "cases": int(inside.sum()),
                "confidence": confidence[inside].mean(),
                "accuracy": found.value,
                "low": found.low,
                "high": found.high,
            }
        )
    columns = ["from", "to", "cases", "confidence", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def fit_presence_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fits one temperature for all findings to the known validation labels.

    `logits` [N, K], `labels` int8 [N, K]. A temperature for each finding would need more validation
    cases than rare findings have, and would change their order. It is 1 if every known label is
    classified correctly, as in `fit_temperature`.
    """
    logits, known = checked(logits), np.asarray(labels) >= 0
    scores, there = logits[known], np.asarray(labels)[known] == 1
    if len(scores) == 0 or (np.where(there, scores, -scores) >= 0).all():
        return 1.0

    def excess(temperature: float) -> float:
        return float(np.mean((presence(scores, temperature) - there) * scores))

    return _root(excess)


def presence_reliability(
    labels: np.ndarray, probabilities: np.ndarray, findings: Sequence[str]
) -> pd.DataFrame:
    """Computes the frequency of each finding in 15 equal bins of its probability.

    `labels` int8 [N, K], `probabilities` [N, K]. The rows are those of `reliability_table` for each
    of the K `findings`, named in the first column, `finding`; none for one without known labels.
    """
    probabilities = checked(probabilities)
    tables = []
    for index, name in enumerate(findings):
        cases, there = labelled_cases(labels, index)
        if len(cases):
            table = binned(probabilities[cases, index], there)
            table.insert(0, "finding", name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"finding": []})


def finding_counts(
    labels: np.ndarray, decisions: np.ndarray, findings: Sequence[str]
) -> pd.DataFrame:
    """Counts the decisions on each finding, a row each.

    `labels` int8 [N, K], `decisions` bool [N, K]. Columns: `finding`, `found` (true positives),
    `missed` (false negatives), `false_alarms` (false positives), `rightly_not_called` (true
    negatives) and `unknown` (no label).
    """
    there, absent = labels == 1, labels == 0
    return pd.DataFrame(
        {
            "finding": list(findings),
            "found": (there & decisions).sum(axis=0),
            "missed": (there & ~decisions).sum(axis=0),
            "false_alarms": (absent & decisions).sum(axis=0),
            "rightly_not_called": (absent & ~decisions).sum(axis=0),
            "unknown": (labels < 0).sum(axis=0),
        }
    )


def calibration_gain(
    sampling: Sampling, as_trained: ScoredCases, calibrated: ScoredCases
) -> pd.DataFrame:
    """Compares errors of probabilities before and after recalibration on the same cases.

    One row each for both and for their difference, named in `probabilities`; each error (a metric
    `of_probabilities`, such as `ece` and `brier`) with 95 % bounds `_low` and `_high` over groups.
    A negative difference is an improvement.
    """
    errors = [each for each in overall_metrics() if each.of_probabilities]

    def estimates(cases: ScoredCases) -> dict[str, Estimate]:
        def values(weights: np.ndarray) -> np.ndarray:
            weighted = cases.weighted(weights)
            return np.column_stack([each.score(weighted) for each in errors])

        columns = sampling.table(values).T
        return {
            each.name: sampling.overall(each, column, [cases])
            for each, column in zip(errors, columns, strict=True)
        }

    before, after = estimates(as_trained), estimates(calibrated)
    found: dict[str, dict[str, Interval | Difference]] = {
        "as trained": {name: each.interval for name, each in before.items()},
        "calibrated": {name: each.interval for name, each in after.items()},
        "difference": {name: difference(before[name], after[name]) for name in before},
    }
    rows = []
    for which, errors_of in found.items():
        row: dict[str, object] = {"probabilities": which}
        for name, each in errors_of.items():
            row |= {name: each.value, f"{name}_low": each.low, f"{name}_high": each.high}
        rows.append(row)
    return pd.DataFrame(rows)
