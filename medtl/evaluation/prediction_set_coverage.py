"""Conformal prediction sets: thresholds from calibration cases, and their measured coverage."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import rate
from medtl.evaluation.jackknife import Blocks, ByStratum, Estimate, Interval
from medtl.inference.prediction_sets import OUT_OF_FOLD, PredictionSets

COVERAGE, SIZE, SINGLETONS = "set_coverage", "set_size", "set_singletons"
"""Names of metrics."""


def least_patients(coverage: float) -> int:
    """Returns the least number of calibration patients, in all or of each class.

    Twice the number from which a threshold above 0 exists. With 20 patients the coverage of 90 %
    sets, which varies from draw to draw of the calibration cases, has a standard deviation of 6 %
    (Vovk 2012, "Conditional validity of inductive conformal predictors", ACML).

    >>> [least_patients(each) for each in (0.8, 0.9, 0.95, 0.99)]
    [10, 20, 40, 200]
    """
    return math.ceil(round(2 / (1 - coverage), 6))


def fit_prediction_sets(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    coverage: float,
    seed: int,
    source: str,
) -> PredictionSets:
    """Sets thresholds so that sets contain the class of a new patient's case with `coverage`.

    Split conformal prediction by crepes, with the probability of the true class as conformity
    score. Thresholds are by class (Mondrian) if each class has `least_patients`, and else one for
    all. Cases of one patient are dependent, so one case per patient (of each class, by class) is
    drawn by `seed` (Dunn, Wasserman & Ramdas 2023, "Distribution-free prediction sets for
    two-layer hierarchical models", Journal of the American Statistical Association 118:2491). The
    coverage is then guaranteed if patients are exchangeable, and nothing else was chosen on these
    cases.

    Args:
        labels: int [N], of calibration cases.
        probabilities: [N, K], calibrated.
        groups: [N], any codes; cases of one group (a patient) are dependent.
        coverage: above 0, below 1.
        seed: draws the case of each patient.
        source: see `PredictionSets`.

    Raises:
        MedtlError: fewer patients than `least_patients` in all.
    """
    classes = probabilities.shape[1]
    patients = [len(np.unique(groups[labels == place])) for place in range(classes)]
    if (count := len(np.unique(groups))) < least_patients(coverage):
        raise MedtlError(few_patients(coverage, count))
    by_class = min(patients) >= least_patients(coverage)
    strata = labels if by_class else np.zeros_like(labels)
    chosen = _one_of_each(groups, strata, seed)
    of_label = probabilities[np.arange(len(labels)), labels][chosen]
    thresholds = _thresholds(of_label, strata[chosen], coverage)
    if not by_class:
        thresholds = np.repeat(thresholds, classes)
    return PredictionSets(coverage, tuple(thresholds.tolist()), by_class, tuple(patients), source)


def few_patients(coverage: float, count: int) -> str:
    """Formats the error about too few calibration patients."""
    return (
        f"coverage={coverage:g} needs {least_patients(coverage)} patients (or images of unknown "
        f"patients) to set its thresholds on, and there are {count}; give folds=5, whose "
        "out-of-fold cases all count, a lower coverage, or more images to validate on"
    )


def _one_of_each(groups: np.ndarray, strata: np.ndarray, seed: int) -> np.ndarray:
    """Draws one case of each group and stratum: places, int64."""
    order = np.random.default_rng(seed).permutation(len(groups))
    pairs = np.stack([groups, strata], axis=1)[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    return np.sort(order[first])


def _thresholds(of_label: np.ndarray, strata: np.ndarray, coverage: float) -> np.ndarray:
    """Returns the lowest probability in the set, by stratum: float64 [S].

    crepes decides which of the calibration probabilities, and 0, a set contains.
    """
    with warnings.catch_warnings():
        # importing crepes shows all warnings of the process from then on
        from crepes import ConformalClassifier

    places = np.unique(strata)
    classifier = ConformalClassifier().fit(-of_label, bins=strata)
    candidates = np.concatenate([of_label, np.zeros(len(places))])
    bins = np.concatenate([strata, places])
    inside = classifier.predict_set(-candidates, bins=bins, confidence=coverage, smoothing=False)
    within = np.where(np.asarray(inside, bool), candidates, np.inf)
    return np.array([within[bins == place].min() for place in places])


def cross_conformal_sets(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    coverage: float,
    seed: int,
) -> np.ndarray | None:
    """Returns the sets of out-of-fold cases, bool [N, K], each by thresholds of the other folds.

    `folds` [N] are any codes of the fold of each case; other arguments as in
    `fit_prediction_sets`. None if some of the other folds have too few patients.
    """
    sets = np.zeros(probabilities.shape, bool)
    for fold in np.unique(folds):
        out = folds == fold
        if len(np.unique(groups[~out])) < least_patients(coverage):
            return None
        rule = fit_prediction_sets(
            labels[~out], probabilities[~out], groups[~out], coverage, seed, OUT_OF_FOLD
        )
        sets[out] = rule.members(probabilities[out])
    return sets


@dataclass(frozen=True)
class SetCoverage:
    """Measured coverage and size of prediction sets.

    Attributes:
        rule: thresholds of the sets.
        summary: interval by name: `set_coverage` (share of sets that contain the class of their
            case), `set_size` (mean number of classes in a set) and `set_singletons` (share of sets
            of one class).
        per_class: a row a class: `class`, `cases`, and each of the three with `_low` and `_high`.
    """

    rule: PredictionSets
    summary: dict[str, Interval]
    per_class: pd.DataFrame

    def line(self) -> str:
        """Formats a line for the console and the card."""
        covered, size = self.summary[COVERAGE], self.summary[SIZE]
        return (
            f"coverage={self.rule.coverage:g}: sets contain the class of {covered} of the cases; "
            f"{size} classes in a set, one class in {self.summary[SINGLETONS].value:.0%} of them; "
            f"{self.rule.words()}"
        )


def set_coverage(
    sets: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
    rule: PredictionSets,
    seed: int,
) -> SetCoverage:
    """Measures the coverage and size of prediction sets, with 95 % intervals over patients.

    Args:
        sets: bool [N, K].
        labels: int [N].
        groups: [N], any codes; cases of one group (a patient) are dependent.
        classes: K names.
        rule: thresholds of the sets.
        seed: draws the blocks of more than 400 groups.
    """
    covered, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    rows = []
    for place, name in enumerate(classes):
        of_class = labels == place
        row: dict[str, object] = {"class": name, "cases": int(of_class.sum())}
        if of_class.any():
            found = _measured(covered[of_class], sizes[of_class], groups[of_class], classes, seed)
            for metric, each in found.items():
                row |= {metric: each.value, f"{metric}_low": each.low, f"{metric}_high": each.high}
        rows.append(row)
    return SetCoverage(rule, _measured(covered, sizes, groups, classes, seed), pd.DataFrame(rows))


def _measured(
    covered: np.ndarray, sizes: np.ndarray, groups: np.ndarray, classes: Sequence[str], seed: int
) -> dict[str, Interval]:
    return {
        COVERAGE: rate(covered, groups),
        SIZE: _mean_size(sizes, groups, len(classes), seed),
        SINGLETONS: rate(sizes == 1, groups),
    }


def _mean_size(sizes: np.ndarray, groups: np.ndarray, most: int, seed: int) -> Interval:
    """Computes the mean of sizes (1 to `most`) with its interval from the jackknife."""
    blocks, patients = Blocks.of(groups, seed), len(np.unique(groups))
    parts = [weights @ sizes / weights.sum(axis=1) for weights in blocks.without()]
    moves = blocks.moves(np.concatenate(parts)) if blocks.count > 1 else np.zeros(0)
    freedom = ByStratum(np.zeros(blocks.count, int))
    return Estimate(float(sizes.mean()), moves, freedom, patients, 1.0, float(most)).interval
