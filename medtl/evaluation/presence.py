"""Is a finding there: from its score to a probability that means what it says, and to a decision.

What `calibration` does for classes, of which a case has one, for findings, of which it has any
number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.evaluation.calibration import binned, temperature_between
from medtl.evaluation.metrics import checked
from medtl.evaluation.truth import asked


def presence(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float64 [N, K]: the logistic function of `logits` [N, K] over `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    return 0.5 * (1 + np.tanh(scaled / 2))


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


def decide_findings(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which findings are decided to be there, bool [N, K]: those at their thresholds or above."""
    return np.asarray(probabilities, dtype=np.float64) >= thresholds


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
        cases, there = asked(labels, index)
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
