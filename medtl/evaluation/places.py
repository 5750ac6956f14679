"""Which tensors of a network still have places in the image, however they are laid out.

The images of a case lie side by side: a map of M images with S places a side is S high, M x S wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor


def places_a_side(shape: Sequence[int], images: int = 1) -> int:
    """How many places a side has the map of one image, in a tensor of this shape; 0 if it is none.

    Maps are square: [C, H, W] (convolutions), [H, W, C] (Swin), or tokens [T, C] of H x W patches,
    with or without a class token before them (ViT). A shape that could be both of the first two
    is taken as the first. Of a case of several `images` either of the first two is [images, ...],
    and the tokens of all are in one sequence.
    """
    if len(shape) == 4:
        return places_a_side(shape[1:]) if images > 1 and shape[0] == images else 0
    if images == 1 and len(shape) == 3:
        side = shape[1] if shape[1] in (shape[0], shape[2]) else 0
    elif len(shape) == 2:
        side = math.isqrt(shape[0] // images)
        side = side if shape[0] - images * side**2 in (0, 1) else 0
    else:
        side = 0
    return side if side > 1 else 0


def as_map(tensor: Tensor, images: int = 1) -> Tensor:
    """A tensor [B, ...] with places as a map [B, C, H, images x W]; a class token is dropped."""
    side = places_a_side(tensor.shape[1:], images)
    if tensor.ndim == 3:
        patches = tensor[:, -images * side**2 :].transpose(1, 2)
        return patches.unflatten(2, (images, side, side)).transpose(2, 3).flatten(3)
    if tensor.ndim == 5:
        each = as_map(tensor.flatten(0, 1)).unflatten(0, (-1, images))
        return each.permute(0, 2, 3, 1, 4).flatten(3)
    channels_first = tensor.shape[2] == tensor.shape[3]
    return tensor if channels_first else tensor.permute(0, 3, 1, 2)


def side_by_side(images: np.ndarray) -> np.ndarray:
    """Images [B, C, S, S] as they are; those of cases [B, M, C, S, S] as [B, C, S, M x S]."""
    if images.ndim == 4:
        return images
    return np.concatenate(list(np.moveaxis(images, 1, 0)), axis=-1)
