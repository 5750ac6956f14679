"""torchvision's vision transformer: its names for tensors under those of the publications.

ViT, DeiT, MAE and DINO are published with the names of timm (`blocks.N.attn.qkv.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_OUTSIDE = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.": "conv_proj.",
    "norm.": "encoder.ln.",
    "head.": "heads.head.",
}
_WITHIN = {
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attn.qkv.": "self_attention.in_proj_",
    "attn.proj.": "self_attention.out_proj.",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def named_as_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Returns the tensors under torchvision's names; None if they are of no such transformer."""
    if "patch_embed.proj.weight" not in tensors:
        return None
    renamed = {}
    for name, tensor in tensors.items():
        block = _BLOCK.fullmatch(name)
        start = f"encoder.layers.encoder_layer_{block[1]}." if block else ""
        rest, names = (block[2], _WITHIN) if block else (name, _OUTSIDE)
        for theirs, ours in names.items():
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
                break
        renamed[f"{start}{rest}"] = tensor
    return renamed
