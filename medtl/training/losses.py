"""Losses and validation scores, single-label and multi-label.

The labels of a loss may also be shares of readers, float32 [B, K]: its value is then the mean of
the losses of all readers, each with the weight of one reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor


@dataclass(frozen=True)
class OneLabel:
    """Cross entropy over K classes; `weights` [K], None for equal ones."""

    weights: Tensor | None = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the mean over a batch: `logits` [B, K], `labels` int64 [B]."""
        if labels.ndim == 1:
            return F.cross_entropy(logits, labels, weight=self.weights)
        # PyTorch divides by the number of rows, and not by their weights
        total = F.cross_entropy(logits, labels, weight=self.weights, reduction="sum")
        return total / self.weight(labels).clamp(min=1e-12)

    def weight(self, labels: Tensor) -> Tensor:
        """Returns the weight of a batch in a mean over batches: the sum of its labels' weights."""
        if labels.ndim == 2:
            return (labels if self.weights is None else labels * self.weights).sum()
        weights = torch.ones_like(labels) if self.weights is None else self.weights[labels]
        return weights.sum().float()


@dataclass(frozen=True)
class Findings:
    """Binary cross entropy of K findings; `weights` [K] of present findings, None for 1.

    Unknown labels are left out of the sum and of the count.
    """

    weights: Tensor | None = None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Computes the mean over the known labels: `logits` [B, K], `labels` int8 [B, K]."""
        known = (labels >= 0).to(logits.dtype)
        present = labels.clamp(min=0).to(logits.dtype)
        total = F.binary_cross_entropy_with_logits(
            logits, present, weight=known, pos_weight=self.weights, reduction="sum"
        )
        return total / known.sum().clamp(min=1)

    def weight(self, labels: Tensor) -> Tensor:
        """Returns the weight of a batch in a mean over batches: its number of known labels."""
        return (labels >= 0).sum().float()


def objective(
    train_labels: np.ndarray, valid_labels: np.ndarray, balance: str, device: torch.device
) -> OneLabel | Findings:
    """Returns the loss for labels int [N], or int8 [N, K] of findings, of the two splits.

    Those of training may be shares of readers, float32 [N, K]. `balance=loss` weighs classes by
    inverse frequency; of a finding, images with and without it weigh the same in total.
    """
    kind: type[OneLabel] | type[Findings]
    if valid_labels.ndim == 2:
        known = train_labels >= 0
        there = np.where(known, train_labels, 0).sum(axis=0, dtype=np.float64)
        weights, kind = (known.sum(axis=0) - there) / np.maximum(there, 1), Findings
    else:
        counts = class_counts(train_labels, int(valid_labels.max()) + 1)
        weights, kind = counts.sum() / (len(counts) * np.maximum(counts, 1)), OneLabel
    if balance != "loss":
        return kind()
    return kind(torch.tensor(weights, dtype=torch.float32, device=device))


def class_counts(labels: np.ndarray, classes: int = 0) -> np.ndarray:
    """Counts the images of each class, `classes` or more: labels int [N]; shares add up."""
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.float64)
    return np.bincount(labels, minlength=classes)


def draw_chances(labels: np.ndarray) -> np.ndarray:
    """Returns chances [N] by which classes are drawn equally often; labels int [N], or shares."""
    counts = class_counts(labels)
    chances = 1.0 / counts[labels] if labels.ndim == 1 else labels @ (1.0 / np.maximum(counts, 1))
    return chances / chances.sum()


def train_loss(logits: np.ndarray, labels: np.ndarray, multi_label: bool) -> float:
    """Computes the loss of logits [N, K] without weights of classes; labels may be shares."""
    truth = torch.from_numpy(labels)
    truth = truth.double() if truth.is_floating_point() else truth
    kind = Findings() if multi_label else OneLabel()
    return kind.loss(torch.from_numpy(logits).double(), truth).item()


def valid_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Computes `valid_loss`, `valid_accuracy`, `valid_auroc` and `valid_f1` of an epoch.

    `logits` float32 [N, K] of the validation split, `labels` int64 [N], or int8 [N, K] of findings.
    AUROC and F1 are means over the classes that have images, each against the rest, or over the
    findings that are present in some images and absent in others; NaN if the AUROC of none is
    defined. The accuracy of findings is over known labels.
    """
    scores, truth = torch.from_numpy(logits).double(), torch.from_numpy(labels)
    if labels.ndim == 2:
        loss = Findings().loss(scores, truth).item()
        found = _of_findings(scores.sigmoid().numpy(), labels)
    else:
        loss = OneLabel().loss(scores, truth).item()
        found = _of_classes(scores.softmax(dim=1).numpy(), labels)
    names = ("valid_accuracy", "valid_auroc", "valid_f1")
    return {"valid_loss": loss, **dict(zip(names, map(float, found), strict=True))}


def _of_classes(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    if not np.isfinite(probabilities).all():
        return np.nan, np.nan, np.nan
    predicted = probabilities.argmax(axis=1)
    f1 = f1_score(labels, predicted, average="macro", zero_division=0.0)
    return accuracy_score(labels, predicted), _auroc_of_classes(probabilities, labels), f1


def _auroc_of_classes(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Averages the AUROC of the classes that have cases; NaN if only one has."""
    there = np.unique(labels)
    if len(there) < 2:
        return np.nan
    if probabilities.shape[1] == 2:
        return roc_auc_score(labels, probabilities[:, 1])
    # a fold may test none of a class, for which scikit-learn's multi_class raises
    return np.mean([roc_auc_score(labels == each, probabilities[:, each]) for each in there])


def _of_findings(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    if not np.isfinite(probabilities).all():
        return np.nan, np.nan, np.nan
    known, called = labels >= 0, probabilities >= 0.5
    aurocs, f1s = [], []
    for column, positive, scores, here in zip(
        labels.T, called.T, probabilities.T, known.T, strict=True
    ):
        if len(np.unique(column[here])) == 2:
            aurocs.append(roc_auc_score(column[here], scores[here]))
            f1s.append(f1_score(column[here], positive[here], zero_division=0.0))
    right = (called == (labels == 1))[known].mean()
    return right, np.mean(aurocs), np.mean(f1s)
