"""A model on parts of its cases: by the columns that the user's table brings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.evaluation.subgroups import (
    METRICS,
    PARAMETER,
    DecidedCases,
    differing,
    groups,
    score_subgroups,
)
from medtl.pipeline.run_logging import log_subgroups
from medtl.pipeline.scoring import Scored

CHANCE = 0.05  # of an interval that excludes zero where nothing differs


def grouped_by(
    dataset: Dataset, indices: np.ndarray, columns: Sequence[str]
) -> dict[str, pd.Series]:
    """The group of each case of `indices`, by the name of each column.

    Raises:
        ParameterError: there is no such column, or it has too many groups.
    """
    frame = dataset.frame
    for column in columns:
        if column not in frame or column == "label":
            known = ", ".join(name for name in frame.columns if name != "label")
            raise ParameterError(PARAMETER, column, f"a comma list of columns: {known}")
    return {column: groups(frame[column].iloc[indices], column) for column in columns}


def compare_subgroups(
    dataset: Dataset,
    indices: np.ndarray,
    grouped: dict[str, pd.Series],
    scored: Scored,
    seed: int,
) -> list[str]:
    """Logs the scores of each group; lines for the console on those that differ from the rest."""
    cases = DecidedCases(
        dataset.labels[indices],
        scored.probabilities,
        scored.decisions,
        dataset.groups[indices],
        dataset.classes,
    )
    table = score_subgroups(cases, grouped, seed)
    overall = {name: scored.measures.summary[name] for name in METRICS}
    log_subgroups(table, overall, scored.split)
    lines, count = differing(table)
    opening = [
        f"subgroups     {len(table)} by {', '.join(grouped)}: {len(lines)} of {count} differences "
        f"to the rest have an interval off zero"
    ]
    if count:
        opening.append(f"  (by chance alone about {CHANCE * count:.1f} of {count} would have)")
    unscored = int(table[METRICS[0]].isna().sum())
    if unscored:
        opening.append(f"  {unscored} without scores: too few cases, or none of some class")
    return [*opening, *(f"  {line}" for line in lines)]
