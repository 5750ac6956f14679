"""Evaluation with and without the labels that a list calls doubtful."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.evaluation.doubtful_labels import listed, scores_without_doubtful
from medtl.evaluation.split_evaluation import SplitEvaluation
from medtl.tracking.lineage import doubtful_list


def with_doubtful(
    evaluation: SplitEvaluation,
    dataset: Dataset,
    indices: np.ndarray,
    given: pd.DataFrame | None,
    uri: str,
    seed: int,
) -> SplitEvaluation:
    """Adds scores without doubtful labels, where a list names labels of the evaluated cases.

    The list is the one given, or else that of the training of the model at `uri`.

    Raises:
        MedtlError: it lacks a column.
    """
    table = doubtful_list(uri) if given is None else given
    if table is None:
        return evaluation
    doubtful = listed(table, dataset, indices)
    if given is None and not doubtful.any():
        return evaluation
    scores = scores_without_doubtful(evaluation.cases, doubtful, seed)
    return dataclasses.replace(evaluation, without_doubtful=scores)
