"""Features from the tensors that cross a cut: one or two numbers per channel of each image."""

from __future__ import annotations

import torch
from torch import Tensor


def pooled(tensors: tuple[Tensor, ...]) -> Tensor:
    """Averages the tensors [B, ...] that cross a cut to features, float32 [B, F].

    Maps [B, C, H, W] (and [B, H, W, C], as Swin has them) and token sequences [B, T, C] are
    averaged over their places, the maps [B, P, C, H, W] of P patches or images over these too;
    several tensors are joined.
    """
    return torch.cat([_averaged(tensor).flatten(1) for tensor in tensors], dim=1).float()


def pooled_with_spread(tensors: tuple[Tensor, ...]) -> Tensor:
    """Joins `pooled` and the standard deviation over the same places, float32 [B, 2F].

    The deviation of a tensor without places is 0.
    """
    spreads = [_spread(tensor).flatten(1) for tensor in tensors]
    return torch.cat([pooled(tensors), *spreads], dim=1)


def _averaged(tensor: Tensor) -> Tensor:
    places = _places(tensor)
    return tensor.mean(dim=places) if places else tensor


def _spread(tensor: Tensor) -> Tensor:
    places = _places(tensor)
    if not places:
        return torch.zeros_like(tensor, dtype=torch.float32)
    return tensor.float().std(dim=places, correction=0)


def _places(tensor: Tensor) -> tuple[int, ...]:
    """Returns the axes of the places in a tensor that crosses a cut."""
    if tensor.ndim == 5:
        return 1, 3, 4
    if tensor.ndim == 4:
        channels_last = tensor.shape[1] == tensor.shape[2] != tensor.shape[3]
        return (1, 2) if channels_last else (2, 3)
    return (1,) if tensor.ndim == 3 else ()
