"""Effect of temperature scaling: calibration errors before and after, on other cases."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.evaluation.bounds import difference
from medtl.evaluation.intervals import Sampling, scored

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
    `medtl.evaluation.intervals.measure`. One row each for both and for their difference, named in
    `probabilities`; `ece` and `brier` with 95 % bounds `_low` and `_high` over groups. A negative
    difference is an improvement.
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
