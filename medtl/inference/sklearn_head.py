"""Classical heads: a scikit-learn classifier on the pooled features at a cut.

Kim et al. 2022 (BMC Medical Imaging 22:69) call this the feature extractor hybrid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from medtl.errors import MedtlError

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
    """Fitted pipeline: standardisation, optional principal components, classifier.

    Attributes:
        pipeline: the only one, or the first of an ensemble.
        others: the other pipelines of an ensemble, whose scores are averaged with its own.
    """

    pipeline: Pipeline
    others: tuple[Pipeline, ...] = ()

    @classmethod
    def mean_of(cls, heads: Sequence[SklearnHead]) -> SklearnHead:
        """Returns the ensemble of several heads on equal features."""
        first, *others = (each for head in heads for each in head.pipelines)
        return cls(first, tuple(others))

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """All pipelines."""
        return (self.pipeline, *self.others)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Computes scores float32 [N, K] of features [N, F], uncalibrated like logits."""
        scores = [_scores(each, features) for each in self.pipelines]
        return np.mean(scores, axis=0).astype(np.float32)

    def save(self, file: Path) -> None:
        """Writes the pipelines in the format of skops, which contains no pickle."""
        # importing skops scans all of SciPy, which takes seconds: commands without a classical
        # classifier should not import it
        import skops.io

        skops.io.dump(list(self.pipelines) if self.others else self.pipeline, file)

    @classmethod
    def load(cls, file: Path) -> SklearnHead:
        """Loads the head that `save` wrote.

        Raises:
            MedtlError: the file is damaged, or contains types other than those of this module.
        """
        import skops.io

        try:
            strange = set(skops.io.get_untrusted_types(file=file)) - set(TRUSTED)
            loaded = None if strange else skops.io.load(file, trusted=list(TRUSTED))
        except Exception as error:  # skops documents no errors for damaged files
            raise MedtlError(f"{file} is damaged, or not in the format of skops") from error
        if strange:
            raise MedtlError(f"{file} holds types that are not trusted: {', '.join(strange)}")
        pipelines = loaded if isinstance(loaded, list) else [loaded]
        for each in pipelines:
            if not isinstance(each, Pipeline):
                raise MedtlError(f"{file} holds no classifier, but {type(each).__name__}")
        return cls(pipelines[0], tuple(pipelines[1:]))


def _scores(pipeline: Pipeline, features: np.ndarray) -> np.ndarray:
    """Computes the scores [N, K] of one pipeline."""
    if not isinstance(pipeline[-1], SVC):
        return np.log(np.maximum(pipeline.predict_proba(features), LEAST_PROBABILITY))
    scores = pipeline.decision_function(features)
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def shuffled(tail: SklearnHead, seed: int) -> SklearnHead:
    """Returns a head with its standardised features permuted, which destroys what it learned.

    For a linear classifier this permutes the weights, for a forest the features of its splits, for
    the others the features of the samples that they compare with.
    """
    order = np.random.default_rng(seed).permutation(tail.pipeline[0].n_features_in_)
    exchange = FunctionTransformer(np.take, kw_args={"indices": order, "axis": 1})
    changed = [
        SklearnHead(Pipeline([each.steps[0], ("exchanged", exchange), *each.steps[1:]]))
        for each in tail.pipelines
    ]
    return SklearnHead.mean_of(changed)
