"""Which tensors of a network still have places in the image, however they are laid out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def places_a_side(shape: Sequence[int]) -> int:
    """How many places a side has the map of one image of this shape; 0 if it is no map.

    Maps are square: [C, H, W] (convolutions), [H, W, C] (Swin), or tokens [T, C] of H x W patches,
    with or without a class token before them (ViT). A shape that could be both of the first two
    is taken as the first.
    """
    if len(shape) == 3:
        side = shape[1] if shape[1] in (shape[0], shape[2]) else 0
    elif len(shape) == 2:
        side = math.isqrt(shape[0])
        side = side if shape[0] - side**2 in (0, 1) else 0
    else:
        side = 0
    return side if side > 1 else 0


def as_map(tensor: Tensor) -> Tensor:
    """A tensor [B, ...] with places as a map [B, C, H, W]; a class token is dropped."""
    side = places_a_side(tensor.shape[1:])
    if tensor.ndim == 3:
        patches = tensor[:, -(side**2) :]
        return patches.transpose(1, 2).unflatten(2, (side, side))
    channels_first = tensor.shape[2] == tensor.shape[3]
    return tensor if channels_first else tensor.permute(0, 3, 1, 2)
