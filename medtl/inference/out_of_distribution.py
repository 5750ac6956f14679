"""Out-of-distribution detection by the network's features and by the layout of the image.

Sun, Ming, Zhu & Li 2022, "Out-of-distribution detection with deep nearest neighbors",
arXiv 2204.06507: the distance to the k-th nearest training image, on the unit sphere of features.
The features before the last layer are invariant to anything that does not separate the classes. So
two more descriptors are compared in the same way (ours): mean and deviation of each channel halfway
through the network, which respond to scale (a cropped image) and to other kinds of images; and a
coarse layout of brightness, which responds to inversion.

The limit is a conformal quantile (Vovk, Gammerman & Shafer 2005) of the distances of familiar
images, weighted for groups of dependent images (Dunn, Wasserman & Ramdas 2023, J. Am. Stat. Assoc.
118:2491).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

# Our choice: a search in a sample of this size takes microseconds, and it is stored in a megabyte.
# The paper takes k from 1 to 1000, smaller for smaller samples.
KEPT_IMAGES = 512
NEIGHBOUR = 5
STRANGE_SHARE = 0.01  # expected share of familiar images that are flagged
ENOUGH_GROUPS = 99  # fewest groups for a conformal quantile at this share
SCALE_QUANTILE = 0.95  # of the distances, to normalize those of different descriptors
Z95 = 1.645  # one-sided normal quantile at 5 %
NETWORK, MIDDLE, LAYOUT = "network", "middle", "layout"  # what is compared
LAYOUT_SIDE = 8  # fields per side
EXPECTED = "expected"  # name of the tensor
_TINY = np.finfo(np.float32).tiny


def layout(images: np.ndarray) -> np.ndarray:
    """Averages stored pixels [B, 1 or 3, S, S] over 8 x 8 fields: float32 [B, 3 x 64].

    Cases [B, M, 1 or 3, S, S] give float32 [B, M x 3 x 64]. Grey counts as three equal channels.
    """
    pixels = torch.from_numpy(images.astype(np.float32) / np.iinfo(images.dtype).max)
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    fields = nn.functional.adaptive_avg_pool2d(flat, LAYOUT_SIDE).expand(-1, 3, -1, -1)
    return fields.reshape(len(images), -1).numpy()


def sampled(count: int, seed: int) -> np.ndarray:
    """Draws the training images of a reference from `count`: int64 [M], rising, M at most 512."""
    size = min(KEPT_IMAGES, count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))


@dataclass(frozen=True)
class Sample:
    """Sample of training images, with the limit of the distance to them.

    Attributes:
        features: float16 [M, F] of unit length, M at most 512.
        threshold: largest distance of an image in domain, 0 to 2.
    """

    features: np.ndarray
    threshold: float

    def distance(self, features: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
        """Computes the distance float32 [B] of `features` [B, F] to the 5th nearest training image.

        `others` bool [B, M] restricts the training images that each image is compared with.
        """
        nearness = _unit(features) @ self._directions
        neighbour = min(NEIGHBOUR, len(self.features))
        if others is not None:
            nearness = np.where(others, nearness, -1)  # the largest possible distance
            neighbour = max(1, min(neighbour, others.sum(axis=1).min()))
        nearest = np.partition(nearness, -neighbour, axis=1)[:, -neighbour]
        return np.sqrt(np.maximum(2 - 2 * nearest, 0))

    @cached_property
    def _directions(self) -> np.ndarray:
        """The sample as float32 [F, M]; cached, as the conversion is slower than a comparison."""
        return _unit(self.features).T


@dataclass(frozen=True)
class DomainReference:
    """Reference for out-of-distribution detection: one sample per descriptor."""

    samples: Mapping[str, Sample]
    # expected share of flagged familiar images; None if unknown (older models)
    expected: float | None = None

    @classmethod
    def fit(
        cls,
        train: Mapping[str, np.ndarray],
        valid: Mapping[str, np.ndarray],
        seed: int,
        train_groups: np.ndarray | None = None,
        valid_groups: np.ndarray | None = None,
    ) -> DomainReference:
        """Draws the samples from features [N, F], and sets the limit on images of other groups.

        The score of an image is the largest of its distances, each divided by the 95 % quantile of
        familiar images. The limit is a quantile of that score. With at least 99 groups in the
        validation split, it is taken over its images, by their distances to `train`. With fewer,
        both splits are the sample, each image by its distance to images of other groups; if the
        validation images are farther away than the training images (Mann-Whitney test), since the
        network has fitted the latter, training distances are scaled by the ratio of the medians.
        With fewer than 99 groups in total, the limit is the largest score, and `expected` is above
        1 %.

        Args:
            train: features by name, float32 [N, F] each.
            valid: the same for M images of other groups.
            seed: seed of the sample.
            train_groups: [N], any codes; by default one group per image.
            valid_groups: [M], codes different from those of `train_groups`.
        """
        train_groups = _codes(train_groups, len(next(iter(train.values()))), 0)
        count = len(np.unique(train_groups))
        valid_groups = _codes(valid_groups, len(next(iter(valid.values()))), count)
        if len(np.unique(valid_groups)) >= ENOUGH_GROUPS:
            kept, groups = train, valid_groups
            kept_groups, measured = train_groups, valid
        else:
            kept = {name: np.concatenate([train[name], valid[name]]) for name in train}
            groups = kept_groups = np.concatenate([train_groups, valid_groups])
            measured = kept
        sample = sampled(len(kept_groups), seed)
        others = groups[:, None] != kept_groups[sample]
        features, distances = {}, {}
        for name, each in kept.items():
            features[name] = _unit(each[sample]).astype(np.float16)
            open_ended = Sample(features[name], np.inf)
            distances[name] = open_ended.distance(measured[name], others)
            if measured is kept:
                learned = len(train_groups)
                distances[name][:learned] *= _raised(*np.split(distances[name], [learned]))
        scales = {name: np.quantile(each, SCALE_QUANTILE) for name, each in distances.items()}
        shares = [each / max(scales[name], _TINY) for name, each in distances.items()]
        limit, expected = conformal_limit(np.max(shares, axis=0), groups, STRANGE_SHARE)
        return cls(
            {name: Sample(each, float(scales[name] * limit)) for name, each in features.items()},
            expected,
        )

    def distance(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Scores images by their features [B, F]: [B], above 1 if out of domain.

        The largest of the distances to the training images, each as a share of its threshold.
        """
        shares = [
            sample.distance(features[name]) / max(sample.threshold, _TINY)
            for name, sample in self.samples.items()
        ]
        return np.max(shares, axis=0)

    def inside(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Flags images in domain by their features [B, F]: bool [B].

        Images with NaN among their features are out of domain.
        """
        return self.distance(features) <= 1

    def tensors(self) -> dict[str, Tensor]:
        """Returns the reference as tensors for a safetensors file."""
        kept = {}
        for name, sample in self.samples.items():
            kept[f"{name}.features"] = torch.from_numpy(sample.features)
            kept[f"{name}.threshold"] = torch.tensor(sample.threshold, dtype=torch.float64)
        if self.expected is not None:
            kept[EXPECTED] = torch.tensor(self.expected, dtype=torch.float64)
        return kept

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> DomainReference:
        """Rebuilds the reference from the result of `tensors()`."""
        tensors = dict(tensors)
        expected = tensors.pop(EXPECTED, None)
        if "features" in tensors:  # models from before the layout was compared
            tensors = {f"{NETWORK}.{name}": tensor for name, tensor in tensors.items()}
        names = dict.fromkeys(name.partition(".")[0] for name in tensors)
        return cls(
            {
                name: Sample(
                    tensors[f"{name}.features"].numpy(), tensors[f"{name}.threshold"].item()
                )
                for name in names
            },
            None if expected is None else expected.item(),
        )


def conformal_limit(scores: np.ndarray, groups: np.ndarray, share: float) -> tuple[float, float]:
    """Returns the limit that a score of a new group exceeds with probability at most `share`.

    Groups have equal weight, including the new one: with n groups of one image it is the score of
    rank ceil((n + 1) (1 - share)), or the largest score if there is no such rank.

    Args:
        scores: [N], scores of familiar images.
        groups: [N], any codes; images of one group are dependent.
        share: 0 to 1.

    Returns:
        The limit, and the expected share above it: `share`, or more with too few groups.
    """
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(scores)
    below = np.cumsum(1 / sizes[place][order]) / (len(sizes) + 1)
    # sums of fractions such as 1/3 may miss an integer by rounding
    rank = min(int(np.searchsorted(below, 1 - share - 1e-9)), len(scores) - 1)
    return float(scores[order][rank]), max(share, 1 / (len(sizes) + 1))


def _codes(groups: np.ndarray | None, count: int, first: int) -> np.ndarray:
    """Numbers the groups of `count` images from `first` on: int64 [count]."""
    if groups is None:
        return first + np.arange(count)
    return first + np.unique(groups, return_inverse=True)[1]


def _raised(learned: np.ndarray, unseen: np.ndarray) -> float:
    """Returns the factor, at least 1, from distances of training images to those of unseen ones.

    The factor is 1 if the difference is not significant.
    """
    nearer = np.mean(unseen[:, None] > learned)
    chance = np.sqrt((len(learned) + len(unseen) + 1) / (12 * len(learned) * len(unseen)))
    if nearer - 0.5 <= Z95 * chance:
        return 1.0
    return max(1.0, float(np.median(unseen) / max(np.median(learned), _TINY)))


def _unit(features: np.ndarray) -> np.ndarray:
    """Scales rows [B, F] to unit length, float32; a row of zeros stays zero."""
    features = np.asarray(features, dtype=np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, _TINY)
