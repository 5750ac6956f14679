"""Predictions of a trained model on a split, in batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from medtl.data.dataset import Dataset
from medtl.evaluation.external_validation import ClassMapping
from medtl.evaluation.split_evaluation import SplitPredictions
from medtl.inference.predictor import Predictor
from medtl.training.distributed import SINGLE_PROCESS, SingleProcess
from medtl.training.loaders import PASS_BATCH


def predict_split(
    bundle: Predictor,
    dataset: Dataset,
    split: str,
    mapping: ClassMapping,
    team: SingleProcess = SINGLE_PROCESS,
) -> SplitPredictions:
    """Predicts a split (or `all`), in the labels of the data.

    `mapping` says which of the model's classes mean each label.
    """
    indices = indices_of(dataset, split)
    logits = in_batches(bundle.scores, dataset, indices, team)
    of_model = bundle.probabilities(logits, bundle.temperature)
    return SplitPredictions(
        split,
        indices,
        of_model,
        uncalibrated=mapping.probabilities(bundle.probabilities(logits, 1.0)),
        probabilities=mapping.probabilities(of_model),
        decisions=decided(bundle, of_model, mapping),
        sets=None if bundle.sets is None else mapping.sets(bundle.sets.members(of_model)),
        rule=bundle.sets,
    )


def decided(bundle: Predictor, own: np.ndarray, mapping: ClassMapping) -> np.ndarray:
    """Decides by a model's own probabilities [N, J], in the labels of the data."""
    if bundle.multi_label:
        return bundle.decisions(own)
    return mapping.decisions(own, np.array(bundle.thresholds))


def indices_of(dataset: Dataset, split: str) -> np.ndarray:
    """Returns the samples of a split, or of `all`, that can be scored: int64 [n]."""
    indices = np.arange(len(dataset.labels)) if split == "all" else dataset.splits[split]
    return indices[dataset.measured[indices]]


def in_batches(
    function: Callable[[np.ndarray], np.ndarray],
    dataset: Dataset,
    indices: np.ndarray,
    team: SingleProcess = SINGLE_PROCESS,
) -> np.ndarray:
    """Applies `function` to stored pixels [B, C, S, S] of the images `indices`, and joins.

    Of several processes each passes its share.
    """
    own = indices[team.local_rows(np.arange(len(indices)))]
    parts = [
        function(dataset.images(own[start : start + PASS_BATCH]))
        for start in range(0, len(own), PASS_BATCH)
    ]
    return team.all_gather(torch.from_numpy(np.concatenate(parts)), len(indices)).numpy()


def compared_in_batches(
    bundle: Predictor, dataset: Dataset, indices: np.ndarray, team: SingleProcess = SINGLE_PROCESS
) -> dict[str, np.ndarray]:
    """Applies `Predictor.compared` to all images of `indices`: [N, F] each."""
    widths: dict[str, int] = {}

    def side_by_side(images: np.ndarray) -> np.ndarray:
        compared = bundle.compared(images)
        widths.update({name: each.shape[1] for name, each in compared.items()})
        return np.concatenate(list(compared.values()), axis=1)

    together = in_batches(side_by_side, dataset, indices, team)
    ends = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(together, ends, axis=1), strict=True))
