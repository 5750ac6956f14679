"""Effective number of groups behind a flawless metric, where the jackknife variance is 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtl.evaluation.metrics import OVERALL, PER_CLASS
from medtl.evaluation.truth import asked, has_findings


@dataclass(frozen=True)
class Evidence:
    """Effective numbers of groups behind each metric, by name; per class [K]."""

    overall: dict[str, float]
    per_class: dict[str, np.ndarray]
    macro: dict[str, float]
    micro: dict[str, float]


def evidence(labels: np.ndarray, groups: np.ndarray, classes: int) -> Evidence:
    """Computes the evidence; `labels` as in `truth`, `groups` any codes [N].

    For sensitivity it is the number of groups with the class, for specificity of those without it.
    For the area under the ROC curve it is 4 m n / (m + n + 2) for m and n of them: near 1 the
    variance of the area is that of a proportion of so many cases (limit of the variance of Hanley &
    McNeil 1982 for exponential scores, as in Newcombe 2006, Statistics in Medicine 25:559). For a
    mean over K classes it is K times the least, as one class contributes a K-th of the mean.
    """
    groups, whole = np.asarray(groups), float(len(np.unique(groups)))
    counts = []
    for index in range(classes):
        cases, positive = asked(labels, index)
        own = groups[cases]
        counts.append([len(np.unique(own[positive])), len(np.unique(own[~positive]))])
    there, absent = np.array(counts, np.float64).T
    fewer = np.minimum(there, absent)
    per_class = {
        "sensitivity": there,
        "specificity": absent,
        "precision": there,
        "f1": fewer,
        "auroc": 4 * there * absent / (there + absent + 2),
        "auprc": fewer,
    }
    per_class = {name: np.maximum(per_class[name], 1.0) for name in PER_CLASS}
    defined = (there > 0) & ((absent > 0) | (not has_findings(labels)))
    overall = {
        "accuracy": whole,
        "balanced_accuracy": _mean(
            np.maximum(fewer if has_findings(labels) else there, 1), defined
        ),
        "mcc": float(max(1.0, min(fewer[defined], default=1.0))),
        "ece": whole,
        "brier": whole,
    }
    macro = {name: _mean(each, defined) for name, each in per_class.items()}
    alone = classes == 2 and not has_findings(labels)
    own = {name: float(each[1]) for name, each in per_class.items()} if alone else macro
    overall = {name: (own | overall)[name] for name in OVERALL}
    return Evidence(overall, per_class, macro, dict.fromkeys(PER_CLASS, whole))


def _mean(each: np.ndarray, defined: np.ndarray) -> float:
    return float(defined.sum() * each[defined].min()) if defined.any() else 1.0
