"""Optimizers by name, built from the parameters that need a gradient and from no others."""

from __future__ import annotations

import torch
from torch import nn


def build_optimizer(
    name: str, trained: nn.Module, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of `trained`; biases and norms (one dimension) are not decayed."""
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # fused: one pass over each parameter in place of ten; PyTorch has no fused RMSprop
    if name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=True)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=lr)
    raise ValueError(name)
