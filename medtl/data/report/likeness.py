"""How alike two images are, against how alike any two images of their set are.

All fundus photographs share a bright disc on black and all radiographs of a chest a thorax, so that
different ones agree by most of their pixels. Both measures here are 0 for two images that have in
common what any two of the set have, and 1 for equal ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtl.data.report.looks import THUMBNAIL

SIGNATURE = 64  # numbers of a signature
LOWEST = 12  # frequencies of each axis that a signature is made of
COARSE = 16  # frequencies of each axis that the details leave out
REACH = 2  # pixels by which a tile may be shifted
TILES = 4  # along each axis
TILE = (THUMBNAIL - 2 * REACH) // TILES  # pixels of the side of a tile

_CUT = 256  # images that are cut to see what that changes
_FORGIVEN = 3.0  # weight of what cutting changes, beside what differs between images
_RIDGE, _FEW = 0.1, 16  # added to each variance, of a mean of 1: by itself, and over the images
_SPREAD = 0.15  # standard deviation of a copy's agreement from tile to tile
_PRIOR, _AGREEMENT, _DEVIATION = 20, 0.25, 0.1  # pairs that stand in for those of small sets
_TINY = 1e-9


@dataclass(frozen=True)
class Signatures:
    """Coarse pictures, whitened by those of a set.

    The 12 x 12 lowest frequencies of an image but the constant are scaled to one contrast, the mean
    of the set is taken away, and what is left is whitened, so that signatures of different images
    are near orthogonal however much the set has in common (Jegou and Chum 2012, "Negative evidences
    and co-occurences in image retrieval: the benefit of PCA and whitening", ECCV). What changes
    when an image is cut by a pixel counts as variation, so that copies cut differently stay alike.

    Attributes:
        mean: float32 [143].
        whitening: float32 [143, D], D at most 64.
    """

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, thumbnails: np.ndarray) -> Signatures:
        """Learns what thumbnails [N, 64, 64] have in common."""
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
        """Unit vectors, float32 [N, D]: their product is the likeness of coarse pictures."""
        signatures = (_waves(thumbnails) - self.mean) @ self.whitening
        return signatures / np.linalg.norm(signatures, axis=1, keepdims=True).clip(_TINY)


@dataclass(frozen=True)
class Details:
    """Agreement of fine details, beyond that of any two images of a set.

    Of what is left without the 16 lowest frequencies of each axis, each of 4 x 4 tiles is
    correlated with the place in the other image where it fits best, up to 2 of 64 pixels away: a
    copy may be cut a little differently. As in Cohen's kappa (1960, "A coefficient of agreement for
    nominal scales", Educational and Psychological Measurement 20:37) the agreement that is expected
    anyway is taken away: the edge of a disc on which all images agree says nothing. Tiles count by
    how well they tell copies from others (the weights of a linear discriminant), and less where
    they have little contrast.

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
        """Learns the agreement of pairs of different images: thumbnails [P, 64, 64] each."""
        agreement, contrast = _agreement(_details(a), _details(b))
        total = len(a) + _PRIOR
        expected = (agreement.sum(axis=0) + _PRIOR * _AGREEMENT) / total
        squares = ((agreement - expected) ** 2).sum(axis=0) + _PRIOR * _DEVIATION**2
        weight = (1 - expected) / (squares / total + _SPREAD**2)
        typical = contrast.mean(axis=0) if len(a) else np.zeros_like(expected)
        return cls(expected, weight, np.maximum(typical, _TINY))

    def alike(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Agreement of pairs of thumbnails [P, 64, 64], at most 1: float32 [P]."""
        agreement, contrast = _agreement(_details(a), _details(b))
        weight = self.weight * np.minimum(contrast / self.contrast, 1)
        possible = (weight * (1 - self.expected)).sum(axis=1)
        return (weight * (agreement - self.expected)).sum(axis=1) / np.maximum(possible, _TINY)


def _waves(
    thumbnails: np.ndarray, down: np.ndarray | None = None, across: np.ndarray | None = None
) -> np.ndarray:
    """The lowest frequencies of images [N, 64, 64] without the constant, of length 1: [N, 143].

    `down` and `across` [64, 64] change the columns and rows of an image first.
    """
    lowest = _cosines(THUMBNAIL)[:LOWEST]
    left = lowest if down is None else lowest @ down
    right = lowest if across is None else lowest @ across
    waves = (left @ thumbnails.astype(np.float32) @ right.T).reshape(-1, LOWEST**2)[:, 1:]
    return waves / np.linalg.norm(waves, axis=1, keepdims=True).clip(_TINY)


def _cuts() -> list[tuple[np.ndarray | None, np.ndarray | None]]:
    """Matrices that cut a pixel off one side and stretch the rest, for each of four sides."""
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
    """The best correlation of each tile over all shifts, and its contrast there: [P, 16] each."""
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
    """The orthonormal cosine transform (DCT-II) as a matrix, float32 [side, side]."""
    order, place = np.arange(side)[:, None], np.arange(side)
    waves = np.cos(np.pi * order * (2 * place + 1) / (2 * side)) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    return waves.astype(np.float32)
