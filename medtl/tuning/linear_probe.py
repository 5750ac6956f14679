"""Layer probe: AUROC of a linear classifier on the features at every cut-off.

After Alain & Bengio 2016, "Understanding intermediate layers using linear classifier probes",
arXiv 1610.01644. One pass over the training images computes the pooled features at every cut; each
is classified in cross-validation over patients. The curve over the cut-offs, the OCL curve, shows
where the pretrained features separate these labels best.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtl.evaluation.jackknife import LEVEL, quantile
from medtl.networks.cutoffs import CutPoint, cut_points
from medtl.networks.partition import stages
from medtl.networks.pooled_features import pooled
from medtl.networks.preprocessing import network_input, unit_images
from medtl.progress import progress
from medtl.training.device import autocast
from medtl.training.learner import TransferLearner
from medtl.training.loaders import PASS_BATCH
from medtl.tuning.cutoff_dictionary import Description

FOLDS = 5
MOST_IMAGES = 2000  # training images that are probed; more change the curve little
PENALTIES = np.logspace(0, 5, 6)  # of the ridge, on standardised features


def features_at(
    transfer: TransferLearner, points: list[CutPoint], indices: np.ndarray
) -> list[np.ndarray]:
    """Computes pooled features [N, F_i] at each of `points` (forward order), in one pass."""
    return _features_and_seconds(transfer, points, indices)[0]


@torch.no_grad()
def _features_and_seconds(
    transfer: TransferLearner, points: list[CutPoint], indices: np.ndarray
) -> tuple[list[np.ndarray], float]:
    """Computes the features, and the median seconds an image, without the first batch."""
    backbone = transfer.backbone
    parts = stages(backbone.network, points, backbone.preprocessing.image_size)
    for part in parts:
        part.to(transfer.device)
    columns: list[list[np.ndarray]] = [[] for _ in points]
    starts = range(0, len(indices), PASS_BATCH)
    seconds = []
    for start in progress(starts, len(starts), "layer probe", unit="batch"):
        began = time.perf_counter()
        raw = transfer.dataset.images(indices[start : start + PASS_BATCH])
        images = unit_images(raw, transfer.device)
        tensors = (network_input(images, backbone.preprocessing),)
        for part, column in zip(parts, columns, strict=True):
            with autocast(transfer.device, transfer.precision):
                tensors = part(*tensors)
            column.append(pooled(tensors).cpu().numpy())
        seconds.append((time.perf_counter() - began) / len(raw))
    # the first batch also allocates memory and compiles kernels
    return [np.concatenate(column) for column in columns], float(np.median(seconds[1:] or seconds))


@dataclass(frozen=True)
class Probe:
    """Result of the probe.

    Attributes:
        curve: columns `cutoff`, `score`, `low`, `high`, `features` (their number). `score` is the
            one-against-rest macro AUROC, averaged over folds that keep groups together; `low` and
            `high` are the 95 % t interval of that mean.
        description: description of the data set by the deepest features.
        seconds_per_image: time of a forward pass of the network on this machine.
    """

    curve: pd.DataFrame
    description: Description
    seconds_per_image: float

    def best(self, count: int) -> list[str]:
        """Returns the `count` best cut-offs of the curve, best first."""
        ranked = self.curve.sort_values("score", ascending=False, kind="stable")
        return ranked["cutoff"].head(count).tolist()


def probe(transfer: TransferLearner, kind: Literal["blocks", "layers"]) -> Probe:
    """Probes the training split at every cut point of a kind.

    The very first layer has no features before it and is left out.
    """
    points = [p for p in cut_points(transfer.backbone.network, kind) if p.position > 0]
    dataset = transfer.dataset
    train = dataset.splits["train"]
    train = train[dataset.measured[train]]
    if len(train) > MOST_IMAGES:
        generator = np.random.default_rng(transfer.settings.seed)
        train = np.sort(generator.choice(train, MOST_IMAGES, replace=False))
    features, seconds = _features_and_seconds(transfer, points, train)
    labels, groups = dataset.labels[train], dataset.groups[train]
    rows = []
    for point, column in zip(points, features, strict=True):
        scores = fold_scores(column, labels, groups, transfer.settings.seed)
        wide = quantile(LEVEL, len(scores) - 1) if len(scores) > 1 else np.nan
        error = wide * scores.std(ddof=1) / np.sqrt(len(scores))
        mean = scores.mean()
        rows.append((point.name, mean, mean - error, min(1.0, mean + error), column.shape[1]))
    curve = pd.DataFrame(rows, columns=["cutoff", "score", "low", "high", "features"])
    return Probe(curve, Description.of(features[-1]), seconds)


def fold_scores(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Computes the macro AUROC of a ridge classifier on each fold; `features` [N, F].

    The number of folds is that of the groups (patients) of the rarest class, at most five. A fold
    does not score a class that is missing in the other folds. Findings (labels int8 [N, K]) are
    classified separately, on images with a known label.
    """
    if labels.ndim == 2:
        return _finding_scores(features, labels, groups, seed)
    rarest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    folds = StratifiedGroupKFold(max(2, min(FOLDS, rarest)), shuffle=True, random_state=seed)
    scores = []
    for train, held_out in folds.split(features, labels, groups):
        if len(np.unique(labels[train])) < 2:
            continue
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
        model.fit(features[train], labels[train])
        predicted = model.decision_function(features[held_out])
        predicted = np.stack([-predicted, predicted], axis=1) if predicted.ndim == 1 else predicted
        each = [
            _auroc(labels[held_out] == label, column)
            for label, column in zip(model.classes_, predicted.T, strict=True)
        ]
        each = [score for score in each if np.isfinite(score)]
        scores += [np.mean(each)] if each else []
    return np.array(scores)


def _finding_scores(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    count = max(2, min(FOLDS, len(np.unique(groups))))
    folds = GroupKFold(count, shuffle=True, random_state=seed)
    scores = []
    for train, held_out in folds.split(features, groups=groups):
        scale = StandardScaler().fit(features[train])
        fitted, tested = scale.transform(features[train]), scale.transform(features[held_out])
        each = []
        for columns in _known_alike(labels[train]):
            rows = labels[train][:, columns[0]] >= 0
            if rows.any():
                model = RidgeCV(PENALTIES).fit(fitted[rows], labels[train][np.ix_(rows, columns)])
                predicted = model.predict(tested).reshape(len(tested), -1)
                truth = labels[held_out][:, columns]
                each += [_finding_auroc(*pair) for pair in zip(truth.T, predicted.T, strict=True)]
        each = [score for score in each if np.isfinite(score)]
        scores += [np.mean(each)] if each else []
    return np.array(scores)


def _known_alike(labels: np.ndarray) -> list[np.ndarray]:
    """Groups the findings that are known in the same images: one regression a group."""
    _, part = np.unique(labels >= 0, axis=1, return_inverse=True)
    return [np.flatnonzero(part.ravel() == number) for number in range(part.max() + 1)]


def _finding_auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    known = truth >= 0
    return _auroc(truth[known], scores[known])


def _auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Computes the AUROC; NaN if all or none are positive."""
    return float(roc_auc_score(positive, scores)) if len(np.unique(positive)) == 2 else np.nan
