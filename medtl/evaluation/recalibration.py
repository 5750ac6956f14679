"""What temperature scaling did to probabilities: their errors before and after, on other cases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.evaluation.intervals import percentile_interval, resamplings, scored

ERRORS = ("ece", "brier")


def calibration_gain(
    labels: np.ndarray,
    as_trained: np.ndarray,
    calibrated: np.ndarray,
    patients: np.ndarray,
    seed: int,
    resamples: int = 2000,
) -> pd.DataFrame:
    """The errors of probabilities as trained, calibrated, and their difference on the same cases.

    `as_trained` and `calibrated` are [N, K]; the other arguments are those of
    `medtl.evaluation.intervals.measure`. A row each, `probabilities` says which; `ece` and `brier`
    with 95 % bootstrap bounds `_low` and `_high` over patients. Where the difference is below 0,
    calibration has made the error smaller.
    """
    pair = [scored(labels, each) for each in (as_trained, calibrated)]

    def errors(weights: np.ndarray) -> np.ndarray:
        """[3, errors, R] under weights [R, N]."""
        before, after = (
            np.stack([each.probability_errors(weights)[name] for name in ERRORS]) for each in pair
        )
        return np.stack([before, after, after - before])

    value = errors(np.ones((1, len(labels))))
    draws = [errors(weights) for weights in resamplings(patients, seed, resamples)]
    rows = []
    for row, which in enumerate(("as trained", "calibrated", "difference")):
        columns: dict[str, object] = {"probabilities": which}
        for place, name in enumerate(ERRORS):
            interval = percentile_interval(value[row, place], [each[row, place] for each in draws])
            columns |= {
                name: interval.value,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        rows.append(columns)
    return pd.DataFrame(rows)
