"""Copies of images, exact and near: recompressed, resized, brightened, cut a little differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.report.images import Images
from medtl.data.report.likeness import Details, Signatures
from medtl.data.report.looks import Looks

# Tuned on synthetic eyes, radiographs, ultrasound images, blood cells and photographs: nearly all
# copies that were recompressed, halved, brightened or cut by up to 2 % of every side are above, and
# less than 1 pair of different images per 100 images (`python -m benchmarks copies`).
ALIKE = 0.67
NEAR_SIGNATURES = 0.5
IDENTICAL, NEAR = "identical", "near"

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
            (identical, near) and `alike` (1 for equal images, 0 for an average pair).
        nearest: threshold on the product of signatures of a near copy; above 1 if near copies were
            not searched.
    """

    pairs: pd.DataFrame
    nearest: float


def copies_of(images: Images, looks: Looks) -> Copies:
    """Finds groups of copies, each as a spanning tree of pairs, in the order of the groups.

    A group is a connected component and has one pair less than images; if it crosses splits or
    labels, one of its pairs does. Blank images have no near copies.

    The similarity of a pair is the mean of those of signatures and details. N images take
    N(N - 1)/2 products of signatures (under a second for 10,000 on one core, a hundred times that
    for 100,000). Details are compared only for pairs with near signatures whose images are not in
    one group yet, 0.2 ms per pair. With many similar images the threshold on signatures rises, so
    that the number of such pairs grows with N and not with its square.
    """
    leader, pairs = _identical(images.frame["content"])
    seen = np.flatnonzero((leader == np.arange(len(leader))) & ~looks.blank)
    nearest = NEAR_SIGNATURES
    if len(seen) >= _FEWEST:
        signatures = _signatures(looks.thumbnails, seen)
        nearest = _nearest(signatures)
        details = _details(looks.thumbnails, seen, signatures)
        for first, second, products in _near_pairs(signatures, nearest):
            for start in range(0, len(first), _PAIRS):
                chunk = slice(start, start + _PAIRS)
                a, b, product = seen[first[chunk]], seen[second[chunk]], products[chunk]
                open_yet = leader[a] != leader[b]
                a, b, product = a[open_yet], b[open_yet], product[open_yet]
                alike = (product + details.alike(looks.thumbnails[a], looks.thumbnails[b])) / 2
                for place in np.flatnonzero(alike >= ALIKE):
                    one, other = leader[a[place]], leader[b[place]]
                    if one != other:
                        leader[leader == other] = one
                        pairs.append((int(a[place]), int(b[place]), NEAR, float(alike[place])))
    table = pd.DataFrame(pairs, columns=["first", "second", "kind", "alike"])
    group = pd.Series(leader[table["first"].to_numpy(int)]).rank(method="dense").astype(int)
    table = table.assign(group=group).sort_values(["group", "first"], ignore_index=True)
    return Copies(table, nearest)


def with_copies(copies: pd.DataFrame, count: int) -> np.ndarray:
    """Returns a number for each of `count` images, int64 [N], equal for copies of each other."""
    numbers = np.arange(count)
    for side in ("first", "second"):
        numbers[copies[side].to_numpy(int)] = count + copies["group"].to_numpy(int)
    return numbers


def _identical(content: pd.Series) -> tuple[np.ndarray, list[tuple]]:
    """The first image with the same pixels as each, int64 [N], and the pairs that this makes.

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


def _signatures(thumbnails: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Computes signatures of the images `seen`, whitened by a sample of them."""
    fitted = Signatures.fit(thumbnails[seen[_evenly(len(seen), _SAMPLE)]])
    starts = range(0, len(seen), _ROWS)
    return np.concatenate([fitted.of(thumbnails[seen[at : at + _ROWS]]) for at in starts])


def _details(thumbnails: np.ndarray, seen: np.ndarray, signatures: np.ndarray) -> Details:
    """Fits details on pairs of different images, half the set apart."""
    first = _evenly(len(seen), _DIFFERENT)
    second = (first + len(seen) // 2) % len(seen)
    products = np.einsum("ij,ij->i", signatures[first], signatures[second])
    differ = products < NEAR_SIGNATURES
    return Details.fit(thumbnails[seen[first[differ]]], thumbnails[seen[second[differ]]])


def _nearest(signatures: np.ndarray) -> float:
    """Returns the threshold: `NEAR_SIGNATURES`, or more if that gives too many pairs.

    The number of pairs is estimated from an even sample of the images.
    """
    count = len(signatures)
    drawn = signatures[_evenly(count, _SAMPLE)]
    products = (drawn @ drawn.T)[np.triu_indices(len(drawn), 1)]
    near = np.sort(products[products >= NEAR_SIGNATURES])[::-1]
    most = max(FEW_LOOKS, LOOKS * count) / (count * (count - 1) / 2)
    allowed = int(max(0, most) * len(products))
    if len(near) <= allowed:
        return NEAR_SIGNATURES
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
