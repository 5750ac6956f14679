"""Fits classical classifiers on frozen features, their setting selected on validation.

Kim et al. 2022 (BMC Medical Imaging 22:69) call this the feature extractor hybrid; Prodanova et al.
2018 take the features at a hidden layer and reduce their dimension first. Settings that are not
selected are scikit-learn's defaults, but for the 500 trees of the forest and neighbours weighted by
their distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from medtl.blas import one_blas_thread
from medtl.errors import ParameterError
from medtl.inference.sklearn_head import SklearnHead
from medtl.training.linear_head import best_candidate
from medtl.training.losses import valid_scores

CLASSIFIER_SETTINGS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "logistic": ("C", (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
    "svm": ("C", (0.1, 1.0, 10.0, 100.0)),
    "forest": ("min_samples_leaf", (1, 5)),
    "knn": ("n_neighbors", (5, 15, 45)),
}
"""Per classifier, the scikit-learn parameter that is selected, and its candidates."""


@dataclass(frozen=True)
class ClassicalHead:
    """Classifier whose setting had the highest validation AUROC.

    Attributes:
        head: the fitted classifier.
        valid_logits: its scores of the validation split, float32 [M, K].
        path: one row per candidate: `setting` (name of scikit-learn's parameter), `value`,
            `valid_loss`, `valid_accuracy`, `valid_auroc`, `valid_f1`, and `chosen`.
    """

    head: SklearnHead
    valid_logits: np.ndarray
    path: pd.DataFrame

    @property
    def setting(self) -> str:
        """Selected setting, as `C=0.1`."""
        row = self.path[self.path["chosen"]].iloc[0]
        return f"{row['setting']}={row['value']:g}"


@one_blas_thread
def select_classical_head(
    classifier: str,
    components: int,
    features: np.ndarray,
    labels: np.ndarray,
    valid_features: np.ndarray,
    valid_labels: np.ndarray,
    balance: str,
    seed: int,
    weighted: tuple[np.ndarray, np.ndarray] | None = None,
) -> ClassicalHead:
    """Fits a classifier for each candidate of its setting, and selects one on validation.

    Selects the highest AUROC; ties by the lowest loss, then the first candidate.

    Args:
        classifier: `logistic`, `svm`, `forest` or `knn`.
        components: principal components that the features are reduced to first; 0 for none.
        features: float32 [N, F].
        labels: int [N].
        valid_features: float32 [M, F].
        valid_labels: int [M].
        balance: `none`; any other value weights classes by inverse frequency.
        seed: of the components and the classifier.
        weighted: images int [R] and weights [R], whose `labels` [R] are given; the weights include
            `balance`. Scaling and components are fitted on each image once.

    Raises:
        ParameterError: more components than features or images, or weights or `balance` with k-NN.
    """
    if classifier == "knn":
        _check_neighbours(balance, weighted is not None)
    if components > (most := min(features.shape)):
        raise ParameterError("pca", components, f"at most {most} at this cut-off")
    steps: list[tuple[str, BaseEstimator]] = [("standardised", StandardScaler())]
    if components:
        steps.append(("components", PCA(components, random_state=seed)))
    reduced = Pipeline(steps).fit_transform(features)
    weights = {}
    if weighted is not None:
        reduced, weights = reduced[weighted[0]], {"sample_weight": weighted[1]}
    parameter, values = CLASSIFIER_SETTINGS[classifier]
    if classifier == "knn":
        values = tuple(dict.fromkeys(min(each, len(reduced)) for each in values))
    heads, scores, found = [], [], []
    for value in values:
        estimator = _classifier(classifier, balance if weighted is None else "none", seed)
        estimator.set_params(**{parameter: value}).fit(reduced, labels, **weights)
        head = SklearnHead(Pipeline([*steps, ("classifier", estimator)]))
        logits = head.logits(valid_features)
        heads.append(head)
        scores.append(logits)
        found.append({"setting": parameter, "value": value, **valid_scores(logits, valid_labels)})
    path = pd.DataFrame(found)
    best = best_candidate(path)
    path["chosen"] = path.index == best
    return ClassicalHead(heads[best], scores[best], path)


def _check_neighbours(balance: str, is_weighted: bool) -> None:
    """Refuses settings that need weights of images or classes, which k-NN does not take."""
    if is_weighted:
        allowed = "logistic, svm or forest where readers=soft: k-NN takes no weights of images"
        raise ParameterError("classifier", "knn", allowed)
    if balance != "none":
        raise ParameterError("balance", balance, "none where classifier=knn")


def _classifier(name: str, balance: str, seed: int) -> BaseEstimator:
    weights = "balanced" if balance != "none" else None
    if name == "logistic":
        return LogisticRegression(max_iter=2000, class_weight=weights)
    if name == "svm":
        return SVC(class_weight=weights, random_state=seed)
    if name == "forest":
        return RandomForestClassifier(500, class_weight=weights, random_state=seed)
    return KNeighborsClassifier(weights="distance")
