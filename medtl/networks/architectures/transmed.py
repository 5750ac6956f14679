"""`transmed`: a CNN reads every patch of every image of a case, a transformer relates them.

Dai, Gao & Liu 2021, "TransMed: Transformers advance multi-modal medical image classification",
Diagnostics 11(8):1384. From the paper and reproductions: the images are cut into patches, a ResNet
maps each to a token; learned positions and a class token; an encoder like DeiT's (pre-norm, 12
layers; 192 / 384 / 768 wide with 3 / 6 / 12 heads). Our choices: 4 x 4 patches per image, one
learned position for each place and one for each modality, ResNet-18 unless another is named;
`transmed` alone is the smallest, Ti; the tokens of a missing image are one learned token (as in
BEiT, Bao et al. 2021, arXiv 2106.08254) with the positions of its places.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock

from medtl.networks.architectures.late_fusion import present_images
from medtl.networks.registry import register_case_architecture

GRID = 4  # patches along each side of an image
LAYERS = 12
HEADS = {"transmed": 3, "transmed_ti": 3, "transmed_s": 6, "transmed_b": 12}
HEAD_WIDTH = 64


class TransMed(nn.Module):
    """Cases [B, M x 3, S, S], the M images along the channels, to scores [B, classes].

    `network` maps patches [B, 3, S / 4, S / 4] to features [B, `width`]; S must be a multiple of 4.
    `heads` are those of the attention. Of several images, one that is all 0 is missing.
    """

    def __init__(
        self, network: nn.Module, width: int, modalities: int, classes: int, heads: int
    ) -> None:
        super().__init__()
        features, width = width, heads * HEAD_WIDTH
        self.modalities = modalities
        self.cnn = network
        self.projection = nn.Linear(features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(GRID * GRID, width))
        self.modality = nn.Parameter(0.02 * torch.randn(modalities, 1, width))
        if modalities > 1:
            self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.encoder = nn.Sequential(
            *(EncoderBlock(heads, width, 4 * width, 0.0, 0.0) for _ in range(LAYERS))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Computes scores [B, classes] of cases [B, M x 3, S, S]."""
        present = present_images(images, self.modalities) if self.modalities > 1 else None
        tokens = self.projection(self.cnn(self._patches(images)))
        tokens = tokens.unflatten(0, (-1, self.modalities, GRID * GRID))
        if present is not None:
            present = present.unsqueeze(3)
            tokens = present * tokens + (1 - present) * self.mask_token
        tokens = (tokens + self.positions + self.modality).flatten(1, 2)
        class_token = self.class_token.expand(tokens.shape[0], -1, -1)
        tokens = self.norm(self.encoder(torch.cat([class_token, tokens], dim=1)))
        return self.head(tokens[:, 0])

    def _patches(self, images: Tensor) -> Tensor:
        """Returns patches [B x M x 16, 3, S / 4, S / 4], those of one image one after another."""
        rows = images.unflatten(1, (self.modalities, 3)).unflatten(3, (GRID, -1))
        patches = rows.unflatten(5, (GRID, -1)).permute(0, 1, 3, 5, 2, 4, 6)
        return patches.flatten(0, 3)


for _name, _heads in HEADS.items():
    register_case_architecture(_name, image_network="resnet18")(partial(TransMed, heads=_heads))
