"""Vision transformers of Hugging Face's transformers: names of ViT, DeiT, MAE and DINOv2.

Their `embeddings.` and `encoder.layer.N.` become `patch_embed.` and `blocks.N.` of the original
publications, which timm reads. Query, key and value, which are separate there, are one tensor here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "layernorm.": "norm.",
}
_WITHIN = {
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.w12.",
    "mlp.weights_out.": "mlp.w3.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_SHARE = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")
_SHARES = ("query", "key", "value")
_PATCHES = "embeddings.patch_embeddings.projection.weight"


def named_as_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Returns the tensors under the names of the original publications; None for other files."""
    if _PATCHES not in tensors:
        return None
    renamed: dict[str, Tensor] = {}
    shares: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        if block is None:
            renamed[_replaced(name, _OUTSIDE)] = tensor
            continue
        share = _SHARE.fullmatch(block[2])
        if share is None:
            renamed[f"blocks.{block[1]}.{_replaced(block[2], _WITHIN)}"] = tensor
        else:
            shares.setdefault(f"blocks.{block[1]}.attn.qkv.{share[2]}", {})[share[1]] = tensor
    for name, parts in shares.items():
        if len(parts) == len(_SHARES):
            renamed[name] = torch.cat([parts[share] for share in _SHARES])
    return renamed


def _replaced(name: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
