"""Similarity of two images, relative to that of an average pair of their set.

All fundus photographs share a bright disc on black and all chest radiographs a thorax, so most
pixels of different images agree. Both measures here are 0 for an average pair of the set and 1 for
equal images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtl.data.report.looks import THUMBNAIL

SIGNATURE = 64  # length of a signature
LOWEST = 12  # lowest frequencies per axis, used by signatures
COARSE = 16  # lowest frequencies per axis, removed from details
REACH = 2  # pixels by which a tile may be shifted
TILES = 4  # along each axis
TILE = (THUMBNAIL - 2 * REACH) // TILES  # pixels of the side of a tile

_CUT = 256  # images to estimate the effect of cropping
_FORGIVEN = 3.0  # weight of the covariance from cropping, relative to that between images
_RIDGE, _FEW = 0.1, 16  # ridge on each variance (mean 1): constant, and over the number of images
_SPREAD = 0.15  # standard deviation of a copy's agreement between tiles
_PRIOR, _AGREEMENT, _DEVIATION = 20, 0.25, 0.1  # prior for small sets: pairs, mean, deviation
_TINY = 1e-9


@dataclass(frozen=True)
class Signatures:
    """Low-frequency descriptors, whitened on a set of images.

    The 12 x 12 lowest frequencies of an image except the constant are scaled to unit contrast,
    centred and whitened, so that signatures of different images are nearly orthogonal whatever the
    set has in common (Jegou and Chum 2012, "Negative evidences and co-occurences in image
    retrieval: the benefit of PCA and whitening", ECCV). The effect of cropping by a pixel counts as
    variation, so that differently cropped copies stay similar.

    Attributes:
        mean: float32 [143].
        whitening: float32 [143, D], D at most 64.
    """

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, thumbnails: np.ndarray) -> Signatures:
        """Fits mean and whitening to thumbnails [N, 64, 64]."""
        waves = _waves(thumbnails)
        mean = waves.mean(axis=0)
        between = (waves - mean).T @ (waves - mean) / len(waves)
        some = thumbnails[:_CUT]
        whole = _waves(some)
        changes = np.concatenate([_waves(some, *cut) - whole for cut in _cuts()])
        scatter = between + _FORGIVEN * changes.T @ changes / len(changes)
        scale = np.sqrt(np.diag(scatter)).clip(_TINY)
        variances, directions = np.linalg.eigh(scatter / np.outer(scale, scale))
        variances, directions = variances[-SIGNATURE:], directions[:, -SIGNATURE:]
        ridge = _RIDGE + _FEW / len(thumbnails)
        whitening = directions / scale[:, None] / np.sqrt(variances.clip(0) + ridge)
        return cls(mean, whitening.astype(np.float32))

    def of(self, thumbnails: np.ndarray) -> np.ndarray:
        """Computes signatures, unit vectors float32 [N, D], whose products are similarities."""
        signatures = (_waves(thumbnails) - self.mean) @ self.whitening
        return signatures / np.linalg.norm(signatures, axis=1, keepdims=True).clip(_TINY)


@dataclass(frozen=True)
class Details:
    """Agreement of fine details, beyond that of an average pair of a set.

    After removal of the 16 lowest frequencies per axis, each of 4 x 4 tiles is correlated with the
    best-fitting place in the other image, up to 2 of 64 pixels away, since a copy may be cropped
    differently. As in Cohen's kappa (1960, "A coefficient of agreement for nominal scales",
    Educational and Psychological Measurement 20:37) the expected agreement is subtracted: the edge
    of a disc common to all images carries no information. Tiles are weighted by how well they
    discriminate copies (linear discriminant), and less at low contrast.

    Attributes:
        expected: float32 [16], mean agreement of a tile in different images.
        weight: float32 [16].
        contrast: float32 [16], mean contrast of a tile.
    """

    expected: np.ndarray
    weight: np.ndarray
    contrast: np.ndarray

    @classmethod
    def fit(cls, a: np.ndarray, b: np.ndarray) -> Details:
        """Fits the agreement of pairs of different images: thumbnails [P, 64, 64] each."""
        agreement, contrast = _agreement(_details(a), _details(b))
        total = len(a) + _PRIOR
        expected = (agreement.sum(axis=0) + _PRIOR * _AGREEMENT) / total
        squares = ((agreement - expected) ** 2).sum(axis=0) + _PRIOR * _DEVIATION**2
        weight = (1 - expected) / (squares / total + _SPREAD**2)
        typical = contrast.mean(axis=0) if len(a) else np.zeros_like(expected)
        return cls(expected, weight, np.maximum(typical, _TINY))

    def alike(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Computes the agreement of pairs of thumbnails [P, 64, 64], at most 1: float32 [P]."""
        agreement, contrast = _agreement(_details(a), _details(b))
        weight = self.weight * np.minimum(contrast / self.contrast, 1)
        possible = (weight * (1 - self.expected)).sum(axis=1)
        return (weight * (agreement - self.expected)).sum(axis=1) / np.maximum(possible, _TINY)


def _waves(
    thumbnails: np.ndarray, down: np.ndarray | None = None, across: np.ndarray | None = None
) -> np.ndarray:
    """Computes unit vectors of the lowest frequencies of images [N, 64, 64]: [N, 143].

    The constant is left out. `down` and `across` [64, 64] transform columns and rows first.
    """
    lowest = _cosines(THUMBNAIL)[:LOWEST]
    left = lowest if down is None else lowest @ down
    right = lowest if across is None else lowest @ across
    waves = (left @ thumbnails.astype(np.float32) @ right.T).reshape(-1, LOWEST**2)[:, 1:]
    return waves / np.linalg.norm(waves, axis=1, keepdims=True).clip(_TINY)


def _cuts() -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """Returns matrices that crop a pixel off each of four sides and stretch the rest."""
    pixel = np.arange(THUMBNAIL)
    cuts = []
    for first in (0, 1):
        place = first + pixel * (THUMBNAIL - 2) / (THUMBNAIL - 1)
        below = np.minimum(place.astype(int), THUMBNAIL - 2)
        matrix = np.zeros((THUMBNAIL, THUMBNAIL), np.float32)
        matrix[pixel, below + 1] = place - below
        matrix[pixel, below] = 1 - matrix[pixel, below + 1]
        cuts += [(matrix, None), (None, matrix)]
    return cuts


def _details(thumbnails: np.ndarray) -> np.ndarray:
    whole = thumbnails.astype(np.float32)
    waves = _cosines(THUMBNAIL)[:COARSE]
    return whole - waves.T @ (waves @ whole @ waves.T) @ waves


def _agreement(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the best correlation of each tile over all shifts, and its contrast: [P, 16]."""
    inner = THUMBNAIL - 2 * REACH
    each = np.kron(np.eye(TILES, dtype=np.float32), np.ones((1, TILE), np.float32))
    middle = a[:, REACH : REACH + inner, REACH : REACH + inner]
    own, squares = each @ (middle * middle) @ each.T, b * b
    best, contrast = np.full_like(own, -1), np.zeros_like(own)
    for down in range(2 * REACH + 1):
        for across in range(2 * REACH + 1):
            window = (slice(None), slice(down, down + inner), slice(across, across + inner))
            there = np.sqrt(own * (each @ squares[window] @ each.T))
            agreement = each @ (middle * b[window]) @ each.T / np.maximum(there, _TINY)
            better = agreement > best
            best = np.where(better, agreement, best)
            contrast = np.where(better, there, contrast)
    return best.reshape(len(a), -1), contrast.reshape(len(a), -1)


def _cosines(side: int) -> np.ndarray:
    """Returns the orthonormal cosine transform (DCT-II) as a matrix, float32 [side, side]."""
    order, place = np.arange(side)[:, None], np.arange(side)
    waves = np.cos(np.pi * order * (2 * place + 1) / (2 * side)) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)
