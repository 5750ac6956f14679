"""Subgroups of a split, by columns of the user's table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.evaluation.metrics import subgroup_metrics
from medtl.evaluation.split_evaluation import SplitEvaluation
from medtl.evaluation.subgroups import (
    PARAMETER,
    differing,
    groups,
    score_subgroups,
)
from medtl.pipeline.evaluation_logging import log_subgroups

CHANCE = 0.05  # probability that an interval excludes zero without a difference


def grouped_by(
    dataset: Dataset, indices: np.ndarray, columns: Sequence[str]
) -> dict[str, pd.Series]:
    """Groups the cases of `indices` by each column.

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
    evaluation: SplitEvaluation, grouped: dict[str, pd.Series], seed: int
) -> list[str]:
    """Logs scores of each group; returns lines for the console on those that differ."""
    table = score_subgroups(evaluation.cases, grouped, seed)
    summary = evaluation.measures.summary
    overall = {each.name: summary[each.name] for each in subgroup_metrics()}
    log_subgroups(table, overall, evaluation.split)
    lines, count = differing(table)
    opening = [
        f"subgroups     {len(table)} by {', '.join(grouped)}: {len(lines)} of {count} differences "
        f"to the rest have an interval off zero"
    ]
    if count:
        opening.append(f"  (by chance alone about {CHANCE * count:.1f} of {count} would have)")
    unscored = int(table[subgroup_metrics()[0].name].isna().sum())
    if unscored:
        opening.append(f"  {unscored} without scores: too few cases, or none of some class")
    return [*opening, *(f"  {line}" for line in lines)]
