"""Classical tails: a scikit-learn classifier on the pooled features at a cut.

Kim et al. 2022 (BMC Medical Imaging 22:69) call this the feature extractor hybrid; Prodanova et al.
2018 take the features at a hidden layer and reduce their dimension first. The classifiers' settings
are scikit-learn's defaults except where noted, which is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from medtl.errors import MedtlError, ParameterError

# What the pipelines below hold beyond what skops trusts by itself; nothing else is ever loaded.
TRUSTED = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.EuclideanDistance32",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
LEAST_PROBABILITY = 1e-4  # a forest or k-NN says 0 and 1, of which there is no logarithm


@dataclass(frozen=True)
class SklearnHead:
    """A fitted pipeline: standardisation, principal components where asked for, classifier."""

    pipeline: Pipeline

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores float32 [N, K] of features [N, F], to be calibrated like a network's."""
        classifier = self.pipeline[-1]
        if isinstance(classifier, SVC):
            scores = self.pipeline.decision_function(features)
            if scores.ndim == 1:
                scores = np.stack([-scores, scores], axis=1)
        else:
            scores = np.log(np.maximum(self.pipeline.predict_proba(features), LEAST_PROBABILITY))
        return scores.astype(np.float32)

    def save(self, file: Path) -> None:
        """Writes the pipeline in the format of skops, which holds no pickle."""
        # importing skops scans all of SciPy, which takes seconds: commands without a classical
        # classifier should not import it
        import skops.io

        skops.io.dump(self.pipeline, file)

    @classmethod
    def load(cls, file: Path) -> SklearnHead:
        """The tail that `save` wrote.

        Raises:
            MedtlError: the file holds anything but the pipelines of this module, or is damaged.
        """
        import skops.io

        try:
            strange = set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED)
            pipeline = None if strange else skops.io.load(file, trusted=list(TRUSTED))
        except Exception as error:  # what a damaged file makes skops raise is not documented
            raise MedtlError(f"{file} is damaged, or not in the format of skops") from error
        if strange:
            raise MedtlError(f"{file} holds types that are not trusted: {', '.join(strange)}")
        if not isinstance(pipeline, Pipeline):
            raise MedtlError(f"{file} holds no classifier, but {type(pipeline).__name__}")
        return cls(pipeline)


def shuffled(tail: SklearnHead, seed: int) -> SklearnHead:
    """A tail that reads one feature where it has learned of another: all it learned is lost.

    The features are shuffled once they are standardised. Of a linear classifier that shuffles the
    weights, of a forest the features that it asks for, of the others what they compare with.
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
    `balance=loss` weighs classes by their rarity; k-NN has no such weights.

    Raises:
        ParameterError: there are fewer features or images than components, or k-NN cannot balance.
    """
    steps: list = [StandardScaler()]
    if components:
        most = min(features.shape)
        if components > most:
            raise ParameterError("pca", components, f"at most {most} at this cut-off")
        steps.append(PCA(components, random_state=seed))
    steps.append(_classifier(classifier, balance, seed))
    names = (
        ("standardised", "components", "classifier")
        if components
        else (
            "standardised",
            "classifier",
        )
    )
    return SklearnHead(Pipeline(list(zip(names, steps, strict=True))).fit(features, labels))


def _classifier(name: str, balance: str, seed: int):
    weights = "balanced" if balance != "none" else None
    if name == "logistic":
        # standardised features are many and correlated: a tenth of the default's strength
        return LogisticRegression(C=0.1, max_iter=2000, class_weight=weights)
    if name == "svm":
        return SVC(class_weight=weights, random_state=seed)
    if name == "forest":
        return RandomForestClassifier(500, class_weight=weights, random_state=seed)
    if weights is not None:
        raise ParameterError("balance", balance, "none where classifier=knn")
    return KNeighborsClassifier(15, weights="distance")
