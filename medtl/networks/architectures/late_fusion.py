"""`late_fusion`: one CNN over every image of a case, the features joined before the dense head.

The usual CNN baseline of multi-modal networks, to which Dai, Gao & Liu 2021 (Diagnostics
11(8):1384) compare TransMed. Our choices: the modalities share the CNN's weights; the head of
several images has a hidden layer, so that features of two images can interact; the features of a
missing image are 0.
"""

from __future__ import annotations

from torch import Tensor, nn

from medtl.networks.registry import register_case_architecture


@register_case_architecture("late_fusion", image_network="resnet18")
class LateFusion(nn.Module):
    """Cases [B, M x 3, S, S], the M images along the channels, to scores [B, classes].

    `network` maps images [B, 3, S, S] to features [B, `width`]. Of several images, one that is all
    0 is missing.
    """

    def __init__(self, network: nn.Module, width: int, modalities: int, classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.cnn = network
        self.fc: nn.Module = (
            nn.Linear(width, classes) if modalities == 1 else Joint(modalities, width, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Computes scores [B, classes] of cases [B, M x 3, S, S]."""
        if self.modalities == 1:
            return self.fc(self.cnn(images))
        present = present_images(images, self.modalities)
        each = images.unflatten(1, (self.modalities, 3)).flatten(0, 1)
        features = self.cnn(each).unflatten(0, (-1, self.modalities)) * present
        return self.fc(features.flatten(1))


class Joint(nn.Module):
    """Head from features of M images [B, M x F] to scores [B, K], with a hidden layer of F."""

    def __init__(self, modalities: int, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(modalities * width, width)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Computes scores [B, K] of features [B, M x F]."""
        return self.dense(self.relu(self.hidden(features)))


def present_images(images: Tensor, modalities: int) -> Tensor:
    """Returns [B, M, 1] for cases [B, M x 3, S, S]: 0 for an image that is all 0, else 1."""
    each = images.unflatten(1, (modalities, -1)).flatten(2)
    return (each != 0).any(dim=2, keepdim=True).to(images.dtype)
