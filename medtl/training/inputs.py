"""From stored pixels to what a network takes: scaled, augmented, three channels, normalised."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medtl.networks.weights import Preprocessing


def unit_images(raw: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Stored pixels [B, C, S, S] (uint8 or uint16) as float32 in 0..1."""
    depth = float(np.iinfo(raw.dtype).max)
    if raw.dtype == np.uint16:
        # torch has no arithmetic on uint16
        raw = raw.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(raw)).to(device).float().div_(depth)


def network_input(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Unit images [B, 1 or 3, S, S] as normalised float32 [B, 3, S, S], channels last in memory."""
    mean = images.new_tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = images.new_tensor(preprocessing.std).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)
