"""Temperature scaling, operating points and reliability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from medtl.evaluation.confidence_intervals import Sampling, scored
from medtl.evaluation.jackknife import difference
from medtl.evaluation.metrics import (
    CALIBRATION_BINS,
    Ranking,
    calibration_bin,
    checked,
    has_findings,
    labelled_cases,
)
from medtl.inference.decisions import calibrated, presence

# Where a temperature is looked for; networks of this field lie between 0.5 and 5.
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes validation labels most likely (Guo et al. 2017, arXiv 1706.04599).

    `logits` [N, K], `labels` int [N]. The likelihood of `softmax(logits / T)` is concave in 1/T and
    at its top where the logit expected under the probabilities equals, on average, the logit of
    the label. Without a mistake among the cases it has no top (the colder the better), nothing
    can be learned from them, and the temperature is 1.
    """
    logits = checked(logits)
    of_label = logits[np.arange(len(logits)), labels]
    if (of_label >= logits.max(axis=1)).all():
        return 1.0

    def too_cold(temperature: float) -> bool:
        expected = (calibrated(logits, temperature) * logits).sum(axis=1)
        return bool(np.mean(expected - of_label) > 0)

    return temperature_between(too_cold)


def temperature_between(too_cold: Callable[[float], bool]) -> float:
    """Finds the temperature where `too_cold` turns from true to false, by bisection."""
    low, high = COLDEST, HOTTEST
    while high / low > 1 + 1e-6:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if too_cold(middle) else (low, middle)
    return float(np.sqrt(low * high))


def operating_points(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """A threshold a class, float64 [K]: where sensitivity + specificity is highest (Youden 1950).

    Each class against the rest, on validation `labels` int [N] and `probabilities` [N, K]. With
    two classes the threshold of the first is one less that of the second, so that one rule decides.
    A class without cases, or without others, has 1 / K. Of findings (int8 [N, K]) each by itself,
    on the cases of which it is known; without a case of either kind it has one half.
    """

    def highest_youden(true: np.ndarray, false: np.ndarray) -> int:
        return int(np.argmax(true / true[-1] - false / false[-1]))

    return _thresholds_where(labels, probabilities, highest_youden)


def operating_points_at(
    labels: np.ndarray, probabilities: np.ndarray, sensitivity: float
) -> np.ndarray:
    """Returns the highest thresholds that give at least `sensitivity`.

    This holds on the given cases for any probability of a positive one: if that is 0, so is the
    threshold, and every case is positive.

    Classes are independent: with several, a case above two thresholds is assigned to one class, so
    the sensitivity of `decide` may be lower for the other. Arguments as in `operating_points`.
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

    `labels` int [N], `probabilities` [N, K]. A row a bin that has cases: `from`, `to`, `cases`,
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
        low, high = wilson_interval(int(right[inside].sum()), int(inside.sum()))
        rows.append(
            {
                "from": index / CALIBRATION_BINS,
                "to": (index + 1) / CALIBRATION_BINS,
                "cases": int(inside.sum()),
                "confidence": confidence[inside].mean(),
                "accuracy": right[inside].mean(),
                "low": low,
                "high": high,
            }
        )
    columns = ["from", "to", "cases", "confidence", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a proportion (Wilson 1927)."""
    z = 1.959964
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / (1 + z**2 / trials)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


# What `calibration` does for classes, of which a case has one, for findings, of which it has any
# number.


def fit_presence_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The one temperature that makes all that is known on validation most likely.

    `logits` [N, K], `labels` int8 [N, K]. One for all findings, not one for each: rare findings
    have too few validation cases to fit it to, and with one the finding of the highest score stays
    the most probable one. As in `fit_temperature` it is 1 where there is no mistake to learn from.
    """
    logits, known = checked(logits), np.asarray(labels) >= 0
    scores, there = logits[known], np.asarray(labels)[known] == 1
    if len(scores) == 0 or (np.where(there, scores, -scores) >= 0).all():
        return 1.0

    def too_cold(temperature: float) -> bool:
        return bool(np.mean((presence(scores, temperature) - there) * scores) > 0)

    return temperature_between(too_cold)


def presence_reliability(
    labels: np.ndarray, probabilities: np.ndarray, findings: Sequence[str]
) -> pd.DataFrame:
    """How often a finding was there, by its probability, in 15 bins of equal width.

    `labels` int8 [N, K], `probabilities` [N, K]. The rows of `reliability_table` for each of the K
    `findings`, which stands in the first column, `finding`; none where nothing is known of it.
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
    """The two by two table of each finding, a row each.

    `labels` int8 [N, K], `decisions` bool [N, K]. Columns `finding`, `found` (there and called so),
    `missed` (there and not called so), `false_alarms`, `rightly_not_called` and `unknown`.
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


ERRORS = ("ece", "brier")


def calibration_gain(
    labels: np.ndarray,
    as_trained: np.ndarray,
    calibrated: np.ndarray,
    groups: np.ndarray,
    seed: int,
    resamples: int = 2000,
) -> pd.DataFrame:
    """Compares calibration errors before and after recalibration on the same cases.

    `as_trained` and `calibrated` are [N, K]; other arguments as in
    `medtl.evaluation.confidence_intervals.measure`. One row each for both and for their difference,
    named in `probabilities`; `ece` and `brier` with 95 % bounds `_low` and `_high` over groups. A
    negative difference is an improvement.
    """
    sampling = Sampling.of(labels, groups, np.shape(calibrated)[1], seed, resamples)
    both = []
    for probabilities in (as_trained, calibrated):
        cases = scored(labels, probabilities)

        def errors(weights: np.ndarray, of: object = cases) -> np.ndarray:
            found = of.probability_errors(weights)
            return np.column_stack([found[name] for name in ERRORS])

        columns = sampling.table(errors).T
        both.append(
            {
                name: sampling.overall(name, column, [cases])
                for name, column in zip(ERRORS, columns, strict=True)
            }
        )
    before, after = both
    found = {
        "as trained": {name: each.interval for name, each in before.items()},
        "calibrated": {name: each.interval for name, each in after.items()},
        "difference": {name: difference(before[name], after[name]) for name in ERRORS},
    }
    rows = []
    for which, errors_of in found.items():
        columns: dict[str, object] = {"probabilities": which}
        for name, interval in errors_of.items():
            columns |= {
                name: interval.value,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        rows.append(columns)
    return pd.DataFrame(rows)
