"""Copies of images, identical and near: resized, recompressed, brightened, turned, mirrored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.fft import dct

from medtl.blas import one_blas_thread
from medtl.data.quality.thumbnails import THUMBNAIL, ImageRows, Looks
from medtl.data.quality.turned_copies import POSES, Pose, pairs_in_pose

# All fundus photographs share a bright disc on black and all chest radiographs a thorax, so most
# pixels of different images agree. Both measures here are 0 for an average pair of the set and 1
# for equal images.


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
        agreement, contrast = _agreement(_fine_details(a), _fine_details(b))
        total = len(a) + _PRIOR
        expected = (agreement.sum(axis=0) + _PRIOR * _AGREEMENT) / total
        squares = ((agreement - expected) ** 2).sum(axis=0) + _PRIOR * _DEVIATION**2
        weight = (1 - expected) / (squares / total + _SPREAD**2)
        typical = contrast.mean(axis=0) if len(a) else np.zeros_like(expected)
        return cls(expected, weight, np.maximum(typical, _TINY))

    def alike(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Computes the agreement of pairs of thumbnails [P, 64, 64], at most 1: float32 [P]."""
        agreement, contrast = _agreement(_fine_details(a), _fine_details(b))
        weight = self.weight * np.minimum(contrast / self.contrast, 1)
        possible = (weight * (1 - self.expected)).sum(axis=1)
        return (weight * (agreement - self.expected)).sum(axis=1) / np.maximum(possible, _TINY)


@one_blas_thread
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


def _fine_details(thumbnails: np.ndarray) -> np.ndarray:
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
    return dct(np.eye(side), axis=0, norm="ortho").astype(np.float32)


# Tuned on synthetic eyes, radiographs, ultrasound images, blood cells and photographs: nearly all
# copies that were recompressed, halved, brightened or cut by up to 2 % of every side are above, and
# less than 1 pair of different images per 100 images (`python -m benchmarks copies`).
ALIKE = 0.67
NEAR_SIGNATURES = 0.5
IDENTICAL, NEAR = "identical", "near"

# The same for copies in another pose, of which there are seven.
ALIKE_TURNED = 0.75
NEAR_TURNED = 0.6
MOST_TURNED = 30_000  # images
FEW_TURNED = 5_000  # pairs that are looked at closely in any case, for each pose

LOOKS, FEW_LOOKS = 10, 50_000  # pairs that are looked at closely: an image, and in any case

_ROWS, _COLUMNS = 1024, 8192  # signatures per matrix product: 32 MB
_PAIRS = 64  # pairs per comparison of details: 8 MB
_SAMPLE = 2048  # images to fit signatures and to estimate the number of near pairs
_DIFFERENT = 256  # pairs of different images to fit the details
_FEWEST = 3  # least images to fit a mean and a difference


@dataclass(frozen=True)
class Copies:
    """Identical and near copies among N images.

    Attributes:
        pairs: columns `group` (from 1), `first` and `second` (indices of the images), `kind`
            (identical, near, turned, mirrored) and `alike` (1 for equal images, 0 for an average
            pair).
        nearest: threshold on the product of signatures of a near copy; above 1 if near copies were
            not searched.
        are_turned: true if turned and mirrored copies were searched.
    """

    pairs: pd.DataFrame
    nearest: float
    are_turned: bool = True


def copies_of(images: ImageRows, looks: Looks) -> Copies:
    """Finds groups of copies, each as a spanning tree of pairs, in the order of the groups.

    A group is a connected component and has one pair less than images; if it crosses splits or
    labels, one of its pairs does. Blank images have no near copies.

    The similarity of a pair is the mean of those of signatures and details. N images take
    N(N - 1)/2 products of signatures (under a second for 10,000 on one core, a hundred times that
    for 100,000), and seven times as many for copies in another pose, which are looked for among up
    to `MOST_TURNED` images. Details are compared only for pairs with near signatures whose images
    are not in one group yet, 0.2 ms per pair. With many similar images the threshold on signatures
    rises, so that the number of such pairs grows with N and not with its square.
    """
    leader, pairs = _identical(images.frame["content"])
    seen = np.flatnonzero((leader == np.arange(len(leader))) & ~looks.blank)
    nearest, are_turned = NEAR_SIGNATURES, len(seen) <= MOST_TURNED
    if len(seen) >= _FEWEST:
        fitted = Signatures.fit(looks.thumbnails[seen[_evenly(len(seen), _SAMPLE)]])
        signatures = _signatures(fitted, looks.thumbnails, seen)
        nearest = _nearest(signatures, signatures, NEAR_SIGNATURES, FEW_LOOKS)
        details = _details(looks.thumbnails, seen, signatures)
        groups = _Groups(leader, pairs)

        def details_alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return details.alike(looks.thumbnails[a], looks.thumbnails[b])

        for first, second, products in _near_pairs(signatures, nearest):
            groups.join(seen[first], seen[second], products, details_alike, NEAR, ALIKE)
        for pose in POSES if are_turned else ():
            alike = partial(_alike_in_pose, details, looks.thumbnails, pose)
            for first, second, products in _pairs_in_pose(fitted, looks, seen, signatures, pose):
                groups.join(seen[first], seen[second], products, alike, pose.kind, ALIKE_TURNED)
    table = pd.DataFrame(pairs, columns=["first", "second", "kind", "alike"])
    group = pd.Series(leader[table["first"].to_numpy(int)]).rank(method="dense").astype(int)
    table = table.assign(group=group).sort_values(["group", "first"], ignore_index=True)
    return Copies(table, nearest, are_turned)


@dataclass(frozen=True)
class _Groups:
    """Groups of copies, joined pair by pair."""

    leader: np.ndarray  # int64 [N], the first image of the group of each
    pairs: list[tuple]

    def join(
        self,
        first: np.ndarray,
        second: np.ndarray,
        products: np.ndarray,
        details_alike: Callable[[np.ndarray, np.ndarray], np.ndarray],
        kind: str,
        least: float,
    ) -> None:
        """Joins the groups of pairs that are alike by `least`, products of signatures included."""
        leader = self.leader
        for start in range(0, len(first), _PAIRS):
            chunk = slice(start, start + _PAIRS)
            a, b, product = first[chunk], second[chunk], products[chunk]
            open_yet = leader[a] != leader[b]
            a, b, product = a[open_yet], b[open_yet], product[open_yet]
            if not len(a):
                continue
            alike = (product + details_alike(a, b)) / 2
            for place in np.flatnonzero(alike >= least):
                one, other = leader[a[place]], leader[b[place]]
                if one != other:
                    leader[leader == other] = one
                    self.pairs.append((int(a[place]), int(b[place]), kind, float(alike[place])))


def _alike_in_pose(
    details: Details, thumbnails: np.ndarray, pose: Pose, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Computes the agreement of details in both poses, as `pairs_in_pose` does signatures."""
    first, second = thumbnails[a], thumbnails[b]
    there = details.alike(pose.of(first), second)
    return np.minimum(there, details.alike(first, pose.inverse.of(second)))


def _pairs_in_pose(
    fitted: Signatures, looks: Looks, seen: np.ndarray, signatures: np.ndarray, pose: Pose
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs of rows of `signatures` of which one may be a copy of the other in a pose."""
    posed = _signatures(fitted, looks.thumbnails, seen, pose)
    undone = (
        posed if pose.inverse == pose else _signatures(fitted, looks.thumbnails, seen, pose.inverse)
    )
    nearest = _nearest(posed, signatures, NEAR_TURNED, FEW_TURNED)
    return pairs_in_pose(signatures, posed, undone, nearest, _ROWS, _COLUMNS)


def with_copies(copies: pd.DataFrame, count: int) -> np.ndarray:
    """Returns a number for each of `count` images, int64 [N], equal for copies of each other."""
    numbers = np.arange(count)
    for side in ("first", "second"):
        numbers[copies[side].to_numpy(int)] = count + copies["group"].to_numpy(int)
    return numbers


def _identical(content: pd.Series) -> tuple[np.ndarray, list[tuple]]:
    """Returns the first image with the same pixels, int64 [N], and pairs of identical images.

    A pair is an image and the one before it with the same pixels, so that a group of any splits
    has a pair across two of them.
    """
    codes = pd.factorize(content)[0]
    order = np.argsort(codes, kind="stable")
    again = np.diff(codes[order], prepend=-1) == 0
    firsts = order[~again]
    places = np.flatnonzero(again)
    pairs = [(int(order[k - 1]), int(order[k]), IDENTICAL, 1.0) for k in places]
    return firsts[codes].astype(np.int64), pairs


def _evenly(count: int, most: int) -> np.ndarray:
    """Returns evenly spaced indices of at most `most` of `count` images."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def _signatures(
    fitted: Signatures, thumbnails: np.ndarray, seen: np.ndarray, pose: Pose | None = None
) -> np.ndarray:
    """Computes signatures of the images `seen`, in a pose or as they are."""
    parts = []
    for start in range(0, len(seen), _ROWS):
        some = thumbnails[seen[start : start + _ROWS]]
        parts.append(fitted.of(some if pose is None else pose.of(some)))
    return np.concatenate(parts)


def _details(thumbnails: np.ndarray, seen: np.ndarray, signatures: np.ndarray) -> Details:
    """Fits details on pairs of different images, half the set apart."""
    first = _evenly(len(seen), _DIFFERENT)
    second = (first + len(seen) // 2) % len(seen)
    products = np.einsum("ij,ij->i", signatures[first], signatures[second])
    differ = products < NEAR_SIGNATURES
    return Details.fit(thumbnails[seen[first[differ]]], thumbnails[seen[second[differ]]])


def _nearest(first: np.ndarray, second: np.ndarray, least: float, few: int) -> float:
    """Returns the threshold on products of signatures: `least`, or more if that gives too many.

    The number of pairs is estimated from an even sample of the images. Up to `few` are allowed in
    any case, and `LOOKS` an image.
    """
    count = len(first)
    drawn = _evenly(count, _SAMPLE)
    products = (first[drawn] @ second[drawn].T)[np.triu_indices(len(drawn), 1)]
    near = np.sort(products[products >= least])[::-1]
    most = max(few, LOOKS * count) / (count * (count - 1) / 2)
    allowed = int(max(0, most) * len(products))
    if len(near) <= allowed:
        return least
    return float(np.nextafter(near[allowed], np.float32(2), dtype=np.float32))


def _near_pairs(
    signatures: np.ndarray, nearest: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs of rows (first below second) of near signatures, and their products."""
    for top in range(0, len(signatures), _ROWS):
        for left in range(top, len(signatures), _COLUMNS):
            products = signatures[top : top + _ROWS] @ signatures[left : left + _COLUMNS].T
            first, second = np.nonzero(products >= nearest)
            near = products[first, second]
            first, second = first + top, second + left
            above = first < second
            yield first[above], second[above], near[above]
