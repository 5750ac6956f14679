"""Does an image look like the training images? By what the network makes of it, and by its layout.

Sun, Ming, Zhu & Li 2022, "Out-of-distribution detection with deep nearest neighbors",
arXiv 2204.06507: the distance to the k-th nearest training image, on the unit sphere of features.
What the last layer reads is made to look past all that does not tell the classes. So two more
things are compared in the same way (ours): mean and spread of each channel half way through the
network, which tell another scale (a cropped image) and other kinds of images; and the coarse layout
of light and dark, which tells an inverted image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

# Ours: a sample this small answers in microseconds and travels with the model in a megabyte. The
# source takes k from 1 to 1000, smaller for smaller samples.
KEPT_IMAGES = 512
NEIGHBOUR = 5
# One validation image in a hundred is called strange, so that few good images are turned away.
FAMILIAR_SHARE = 0.99
NETWORK, MIDDLE, LAYOUT = "network", "middle", "layout"  # what is compared
LAYOUT_SIDE = 8  # fields a side


def layout(images: np.ndarray) -> np.ndarray:
    """Mean brightness of 8 x 8 fields of stored pixels [B, 1 or 3, S, S]: float32 [B, 3 x 64].

    Of cases [B, M, 1 or 3, S, S] float32 [B, M x 3 x 64]. Grey counts as three equal channels.
    """
    pixels = torch.from_numpy(images.astype(np.float32) / np.iinfo(images.dtype).max)
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    fields = nn.functional.adaptive_avg_pool2d(flat, LAYOUT_SIDE).expand(-1, 3, -1, -1)
    return fields.reshape(len(images), -1).numpy()


def sampled(count: int, seed: int) -> np.ndarray:
    """Which of `count` training images a reference is made of: int64 [M], rising, M at most 512."""
    size = min(KEPT_IMAGES, count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))


@dataclass(frozen=True)
class Sample:
    """A sample of training images, and the distance up to which one is familiar.

    `features` float16 [M, F] of unit length, at most 512 of them; `threshold` a distance, 0 to 2.
    """

    features: np.ndarray
    threshold: float

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Distance float32 [B] of `features` [B, F] to their 5th nearest training image."""
        nearness = _unit(features) @ self._directions
        neighbour = min(NEIGHBOUR, len(self.features))
        nearest = np.partition(nearness, -neighbour, axis=1)[:, -neighbour]
        return np.sqrt(np.maximum(2 - 2 * nearest, 0))

    @cached_property
    def _directions(self) -> np.ndarray:
        """The sample as float32 [F, M]: made once, as it would take longer than the comparison."""
        return _unit(self.features).T


@dataclass(frozen=True)
class DomainReference:
    """What images are compared with: a sample for each of the things that are compared."""

    samples: Mapping[str, Sample]

    @classmethod
    def fit(
        cls, train: Mapping[str, np.ndarray], valid: Mapping[str, np.ndarray], seed: int
    ) -> DomainReference:
        """Draws the samples from the features [N, F] of `train`, sets thresholds on `valid`.

        The thresholds are such that all are met by 99 of 100 validation images. They must be of
        other patients than the training images, else it is too strict.
        """
        sample = sampled(len(next(iter(train.values()))), seed)
        samples = {}
        for name, features in train.items():
            open_ended = Sample(_unit(features[sample]).astype(np.float16), np.inf)
            alone = np.quantile(open_ended.distance(valid[name]), FAMILIAR_SHARE)
            samples[name] = Sample(open_ended.features, float(alone))
        together = float(np.quantile(cls(samples).distance(valid), FAMILIAR_SHARE))
        return cls(
            {
                name: Sample(sample.features, sample.threshold * together)
                for name, sample in samples.items()
            }
        )

    def distance(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """How strange images are by their features [B, F]: [B], above 1 for a strange one.

        The largest of the distances to the training images, each as a share of its threshold.
        """
        shares = [
            sample.distance(features[name]) / max(sample.threshold, np.finfo(np.float32).tiny)
            for name, sample in self.samples.items()
        ]
        return np.max(shares, axis=0)

    def inside(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether each image, by its features [B, F], looks like the training images: bool [B].

        Features that are not numbers are not inside.
        """
        return self.distance(features) <= 1

    def tensors(self) -> dict[str, Tensor]:
        """All there is to keep, as tensors for a safetensors file."""
        kept = {}
        for name, sample in self.samples.items():
            kept[f"{name}.features"] = torch.from_numpy(sample.features)
            kept[f"{name}.threshold"] = torch.tensor(sample.threshold, dtype=torch.float64)
        return kept

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> DomainReference:
        """The reference that `tensors()` came from."""
        if "features" in tensors:  # models from before the layout was compared
            tensors = {f"{NETWORK}.{name}": tensor for name, tensor in tensors.items()}
        names = dict.fromkeys(name.partition(".")[0] for name in tensors)
        return cls(
            {
                name: Sample(
                    tensors[f"{name}.features"].numpy(), tensors[f"{name}.threshold"].item()
                )
                for name in names
            }
        )


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows [B, F] scaled to length one, float32; a row of zeros stays zero."""
    features = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)
