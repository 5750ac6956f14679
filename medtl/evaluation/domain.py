"""Does an image look like the training images? A score from the network's own features.

Sun, Ming, Zhu & Li 2022, "Out-of-distribution detection with deep nearest neighbors",
arXiv 2204.06507: the distance to the k-th nearest training image, on the unit sphere of features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Ours: a sample this small answers in microseconds and travels with the model in a megabyte. The
# source takes k from 1 to 1000, smaller for smaller samples.
KEPT_IMAGES = 512
NEIGHBOUR = 5
# One validation image in a hundred is called strange, so that few good images are turned away.
FAMILIAR_SHARE = 0.99


@dataclass(frozen=True)
class DomainReference:
    """A sample of training images to compare with, and the distance up to which one is familiar.

    `features` float16 [M, F] of unit length, at most 512 of them; `threshold` a distance, 0 to 2.
    """

    features: np.ndarray
    threshold: float

    @classmethod
    def fit(
        cls, train_features: np.ndarray, valid_features: np.ndarray, seed: int
    ) -> DomainReference:
        """Draws the sample from `train_features` [N, F], sets the threshold on `valid_features`.

        The threshold is the 99th percentile of the distances of the validation images. They must
        be of other patients than the training images, else it is too strict.
        """
        size = min(KEPT_IMAGES, len(train_features))
        drawn = np.random.default_rng(seed).choice(len(train_features), size, replace=False)
        reference = cls(_unit(train_features[np.sort(drawn)]).astype(np.float16), np.inf)
        distances = reference.distance(valid_features)
        return cls(reference.features, float(np.quantile(distances, FAMILIAR_SHARE)))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distance float32 [B] of `features` [B, F] to their 5th nearest training image."""
        nearness = _unit(features) @ _unit(self.features).T
        neighbour = min(NEIGHBOUR, len(self.features))
        nearest = np.partition(nearness, -neighbour, axis=1)[:, -neighbour]
        return np.sqrt(np.maximum(2 - 2 * nearest, 0))

    def inside(self, features: np.ndarray) -> np.ndarray:
        """Whether each image, by its `features` [B, F], looks like the training images: bool [B].

        Features that are not numbers are not inside.
        """
        return self.distance(features) <= self.threshold

    def tensors(self) -> dict[str, Tensor]:
        """All there is to keep, as tensors for a safetensors file."""
        return {
            "features": torch.from_numpy(self.features),
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> DomainReference:
        """The reference that `tensors()` came from."""
        return cls(tensors["features"].numpy(), tensors["threshold"].item())


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows [B, F] scaled to length one, float32; a row of zeros stays zero."""
    features = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
