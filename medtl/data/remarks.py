"""Remarks of the decoders on their assumptions about a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEVERAL = "of several pages or frames of a picture the first is taken (frames=first)"
"""Remark on a TIFF, GIF, PNG, WebP or JPEG with several pages or frames."""


@dataclass(frozen=True)
class Decoded:
    """Pixels of an image file, and remarks on how they were decoded."""

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def counted(paths: Sequence[str], remarks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Formats a line per remark on N images: number of images, and the first paths."""
    having: dict[str, list[str]] = {}
    for path, each in zip(paths, remarks, strict=True):
        for remark in each:
            having.setdefault(remark, []).append(path)
    return tuple(
        f"{remark}: {len(found)} of {len(paths)} images "
        f"({', '.join(found[:2])}{', ...' if len(found) > 2 else ''})"
        for remark, found in having.items()
    )
