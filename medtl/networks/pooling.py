"""Features from what crosses a cut: one number for each channel of each image."""

from __future__ import annotations

import torch
from torch import Tensor


def pooled(tensors: tuple[Tensor, ...]) -> Tensor:
    """What crosses a cut, tensors [B, ...], as features float32 [B, F].

    Maps [B, C, H, W] (and [B, H, W, C], as Swin has them) and token sequences [B, T, C] are
    averaged over their places, the maps [B, P, C, H, W] of P patches or images over these too;
    several tensors are joined.
    """
    return torch.cat([_averaged(tensor).flatten(1) for tensor in tensors], dim=1).float()


def _averaged(tensor: Tensor) -> Tensor:
    if tensor.ndim == 5:
        return tensor.mean(dim=(1, 3, 4))
    if tensor.ndim == 4:
        channels_last = tensor.shape[1] == tensor.shape[2] != tensor.shape[3]
        return tensor.mean(dim=(1, 2) if channels_last else (2, 3))
    return tensor.mean(dim=1) if tensor.ndim == 3 else tensor
