"""Remarks on decoded images: what a decoder took for something else than the file says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SEVERAL = "of several pages or frames of a picture the first is taken (frames=first)"
"""The remark on a TIFF, GIF, PNG, WebP or JPEG with several whose first is decoded."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of an image file, and in a few words each what the reader should know of them."""

    pixels: np.ndarray
    remarks: tuple[str, ...] = ()


def counted(paths: Sequence[str], remarks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A line for each remark on any of N images: how many have it, and the first ones' paths."""
    having: dict[str, list[str]] = {}
    for path, each in zip(paths, remarks, strict=True):
        for remark in each:
            having.setdefault(remark, []).append(path)
    return tuple(
        f"{remark}: {len(found)} of {len(paths)} images "
        f"({', '.join(found[:2])}{', ...' if len(found) > 2 else ''})"
        for remark, found in having.items()
    )
