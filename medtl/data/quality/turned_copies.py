"""Copies that are turned by a multiple of 90 degrees, mirrored, or both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

TURNED, MIRRORED = "turned", "mirrored"


@dataclass(frozen=True)
class Pose:
    """Symmetry of the square: mirrored left to right or not, then turned by quarters.

    Attributes:
        quarters: quarter turns, counter-clockwise.
        is_mirrored: true for a reflection.
    """

    quarters: int
    is_mirrored: bool

    @property
    def kind(self) -> str:
        """Kind of a copy in this pose: `turned` or `mirrored`."""
        return MIRRORED if self.is_mirrored else TURNED

    @property
    def inverse(self) -> Pose:
        """Pose that undoes this one; a reflection undoes itself."""
        return self if self.is_mirrored else Pose(-self.quarters % 4, False)

    def of(self, images: np.ndarray) -> np.ndarray:
        """Returns images [N, S, S] in this pose."""
        mirrored = images[:, :, ::-1] if self.is_mirrored else images
        return np.rot90(mirrored, self.quarters, axes=(1, 2))


POSES = tuple(
    Pose(quarters, is_mirrored)
    for is_mirrored in (False, True)
    for quarters in range(4)
    if quarters or is_mirrored
)
"""The seven symmetries of the square but the identity."""


def pairs_in_pose(
    signatures: np.ndarray,
    posed: np.ndarray,
    undone: np.ndarray,
    nearest: float,
    rows: int,
    columns: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs of images, of which the second may be a copy of the first in a pose.

    Signatures are whitened for the images as they are, and an image in another pose is unlike all
    of them: two different ones in that pose are alike in being so. Therefore the first image in the
    pose is compared with the second one, and the first one with the second one turned back; the
    lower similarity counts.

    Args:
        signatures: of N images, float32 [N, D].
        posed: of the images in the pose.
        undone: of the images in the inverse pose.
        nearest: least product of signatures.
        rows: signatures per matrix product, of the first images.
        columns: signatures per matrix product, of the second ones.

    Yields:
        Rows of the first and of the second images (first below second), and their products.
    """
    for top in range(0, len(signatures), rows):
        for left in range(top, len(signatures), columns):
            products = posed[top : top + rows] @ signatures[left : left + columns].T
            first, second = np.nonzero(products >= nearest)
            near = products[first, second]
            first, second = first + top, second + left
            above = first < second
            first, second, near = first[above], second[above], near[above]
            back = np.einsum("ij,ij->i", signatures[first], undone[second])
            both = np.minimum(near, back)
            kept = both >= nearest
            yield first[kept], second[kept], both[kept]
