"""Copies of images, exact and near: recompressed, resized, brightened, cut a little differently."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.report.images import Images
from medtl.data.report.likeness import BITS, likeness, perceptual_hashes
from medtl.data.report.looks import Looks

# Chosen on chest phantoms, radiographs, ultrasound images and blood cells. Copies that were
# recompressed, halved or brightened agree by 0.87 at least, copies with 2 % cut off every side by
# 0.80 to 0.93; images of different patients whose hashes are near agree by 0.80 at most.
BITS_APART = 8
ALIKE = 0.84
IDENTICAL, NEAR = "identical", "near"

LOOKS, FEW_LOOKS = 10, 50_000  # pairs that are looked at closely: an image, and in any case

_ROWS, _COLUMNS = 1024, 8192  # hashes that are compared with each other at a time: 32 MB
_PAIRS = 128  # pairs that are looked at closely at a time: 46 MB
_SAMPLE = 2048  # images that tell how many pairs of all have near hashes


@dataclass(frozen=True)
class Copies:
    """The copies among N images.

    Attributes:
        pairs: columns `group` (from 1), `first` and `second` (places of the images), `kind`
            (identical, near), `bits` (by which their hashes differ) and `alike` (`likeness`).
        bits_apart: the most bits that the hashes of a near copy may differ by; -1 where none was
            looked for.
    """

    pairs: pd.DataFrame
    bits_apart: int


def copies_of(images: Images, looks: Looks) -> Copies:
    """The pairs that tie each group of copies together, in the order of the groups.

    A group holds what is joined by a chain of pairs, and has one pair less than images: where it
    lies across two splits or labels, one of its pairs does. Blank images have no near copies.

    N images are compared as N(N - 1)/2 products of hashes (under a second for 10,000 on one core,
    a hundred times that for 100,000). Only pairs with near hashes whose images are not in one group
    yet are looked at closely, 0.2 ms a pair. Among many images that look alike, nearer hashes are
    asked for, so that such pairs grow with N and not with its square.
    """
    leader, pairs = _identical(images.frame["content"])
    seen = np.flatnonzero((leader == np.arange(len(leader))) & ~looks.blank)
    starts = range(0, max(1, len(seen)), _ROWS)
    chunks = (looks.thumbnails[seen[start : start + _ROWS]] for start in starts)
    hashes = np.concatenate([perceptual_hashes(chunk) for chunk in chunks])
    bits_apart = _bits_apart(hashes)
    for first, second, bits in _near_hashes(hashes, bits_apart):
        for start in range(0, len(first), _PAIRS):
            chunk = slice(start, start + _PAIRS)
            a, b, apart = seen[first[chunk]], seen[second[chunk]], bits[chunk]
            open_yet = leader[a] != leader[b]
            a, b, apart = a[open_yet], b[open_yet], apart[open_yet]
            alike = likeness(looks.thumbnails[a], looks.thumbnails[b])
            for place in np.flatnonzero(alike >= ALIKE):
                one, other = leader[a[place]], leader[b[place]]
                if one != other:
                    leader[leader == other] = one
                    values = (NEAR, int(apart[place]), float(alike[place]))
                    pairs.append((int(a[place]), int(b[place]), *values))
    table = pd.DataFrame(pairs, columns=["first", "second", "kind", "bits", "alike"])
    group = pd.Series(leader[table["first"].to_numpy(int)]).rank(method="dense").astype(int)
    table = table.assign(group=group).sort_values(["group", "first"], ignore_index=True)
    return Copies(table, bits_apart)


def with_copies(copies: pd.DataFrame, count: int) -> np.ndarray:
    """A number for each of `count` images, int64 [N], equal for copies of each other."""
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
    pairs = [(int(order[k - 1]), int(order[k]), IDENTICAL, 0, 1.0) for k in places]
    return firsts[codes].astype(np.int64), pairs


def _bits_apart(hashes: np.ndarray) -> int:
    """`BITS_APART`, or fewer where that would give too many pairs.

    How many it would give is told by the pairs of images that are drawn evenly.
    """
    count = len(hashes)
    places = np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)
    signs = _signs(hashes[places])
    bits = (BITS - signs @ signs.T).astype(np.int64) // 2
    pairs = np.bincount(bits.ravel(), minlength=BITS)[: BITS_APART + 1]
    pairs[0] -= len(places)  # each with itself
    share = np.cumsum(pairs) / max(1, len(places) * (len(places) - 1))
    expected = share * count * (count - 1) / 2
    return int((expected <= max(FEW_LOOKS, LOOKS * count)).sum()) - 1


def _near_hashes(
    hashes: np.ndarray, bits_apart: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs of rows (first below second) of hashes that are near, and by how many bits.

    The product of two hashes as signs is 64 less twice the bits that differ.
    """
    signs = _signs(hashes)
    for top in range(0, len(signs), _ROWS):
        for left in range(top, len(signs), _COLUMNS):
            products = signs[top : top + _ROWS] @ signs[left : left + _COLUMNS].T
            first, second = np.nonzero(products >= BITS - 2 * bits_apart)
            bits = (BITS - products[first, second]).astype(int) // 2
            first, second = first + top, second + left
            above = first < second
            yield first[above], second[above], bits[above]


def _signs(hashes: np.ndarray) -> np.ndarray:
    """Bits as +1 and -1, float32."""
    return np.where(hashes, 1, -1).astype(np.float32)
