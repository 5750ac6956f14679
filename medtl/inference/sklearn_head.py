"""Classical heads: a scikit-learn classifier on the pooled features at a cut.

Kim et al. 2022 (BMC Medical Imaging 22:69) call this the feature extractor hybrid; Prodanova et al.
2018 take the features at a hidden layer and reduce their dimension first. The classifiers have
scikit-learn's default settings except where noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from medtl.errors import MedtlError, ParameterError

# Types of the pipelines below that skops does not trust by itself; no others are loaded.
TRUSTED = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.EuclideanDistance32",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
LEAST_PROBABILITY = 1e-4  # a forest or k-NN gives probabilities of 0, which have no logarithm


@dataclass(frozen=True)
class SklearnHead:
    """Fitted pipeline: standardisation, optional principal components, classifier."""

    pipeline: Pipeline

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes scores float32 [N, K] of features [N, F], uncalibrated like logits."""
        classifier = self.pipeline[-1]
        if isinstance(classifier, SVC):
            scores = self.pipeline.decision_function(features)
            if scores.ndim == 1:
                scores = np.stack([-scores, scores], axis=1)
        else:
            scores = np.log(np.maximum(self.pipeline.predict_proba(features), LEAST_PROBABILITY))
        return scores.astype(np.float32)

    def save(self, file: Path) -> None:
        """Writes the pipeline in the format of skops, which contains no pickle."""
        # importing skops scans all of SciPy, which takes seconds: commands without a classical
        # classifier should not import it
        import skops.io

        skops.io.dump(self.pipeline, file)

    @classmethod
    def load(cls, file: Path) -> SklearnHead:
        """Loads the head that `save` wrote.

        Raises:
            MedtlError: the file is damaged, or contains types other than those of this module.
        """
        import skops.io

        try:
            strange = set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED)
            pipeline = None if strange else skops.io.load(file, trusted=list(TRUSTED))
        except Exception as error:  # skops documents no errors for damaged files
            raise MedtlError(f"{file} is damaged, or not in the format of skops") from error
        if strange:
            raise MedtlError(f"{file} holds types that are not trusted: {', '.join(strange)}")
        if not isinstance(pipeline, Pipeline):
            raise MedtlError(f"{file} holds no classifier, but {type(pipeline).__name__}")
        return cls(pipeline)


def shuffled(tail: SklearnHead, seed: int) -> SklearnHead:
    """Returns a head with its standardised features permuted, which destroys what it learned.

    For a linear classifier this permutes the weights, for a forest the features of its splits, for
    the others the features of the samples that they compare with.
    """
    standardised, *steps = tail.pipeline.steps
    order = np.random.default_rng(seed).permutation(tail.pipeline[0].n_features_in_)
    exchange = FunctionTransformer(np.take, kw_args={"indices": order, "axis": 1})
    return SklearnHead(Pipeline([standardised, ("exchanged", exchange), *steps]))


def fit_sklearn_head(
    classifier: str,
    components: int,
    features: np.ndarray,
    labels: np.ndarray,
    balance: str,
    seed: int,
) -> SklearnHead:
    """Fits `classifier` (logistic, svm, forest, knn) on `features` [N, F], `labels` int [N].

    With `components` above 0 the features are first reduced to so many principal components.
    `balance=loss` weights classes by inverse frequency; k-NN has no class weights.

    Raises:
        ParameterError: more components than features or images, or `balance` with k-NN.
    """
    steps: list[tuple[str, BaseEstimator]] = [("standardised", StandardScaler())]
    if components:
        most = min(features.shape)
        if components > most:
            raise ParameterError("pca", components, f"at most {most} at this cut-off")
        steps.append(("components", PCA(components, random_state=seed)))
    steps.append(("classifier", _classifier(classifier, balance, seed)))
    return SklearnHead(Pipeline(steps).fit(features, labels))


def _classifier(name: str, balance: str, seed: int) -> BaseEstimator:
    weights = "balanced" if balance != "none" else None
    if name == "logistic":
        # a tenth of the default C, as the features are many and correlated
        return LogisticRegression(C=0.1, max_iter=2000, class_weight=weights)
    if name == "svm":
        return SVC(class_weight=weights, random_state=seed)
    if name == "forest":
        return RandomForestClassifier(500, class_weight=weights, random_state=seed)
    if weights is not None:
        raise ParameterError("balance", balance, "none where classifier=knn")
    return KNeighborsClassifier(15, weights="distance")
