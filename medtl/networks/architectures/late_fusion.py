"""`late_fusion`: one CNN over every image of a case, the features joined before the dense head.

The usual CNN baseline of multi-modal networks, against which TransMed (Dai, Gao & Liu 2021,
Diagnostics 11(8):1384) is set. Ours: the CNN's weights are shared by the modalities; the head of
several images has a hidden layer, so that one image can tell how another is to be read; the
features of a missing image are 0.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import get_model

from medtl.networks.architectures.small_resnet import SmallResNet


class LateFusion(nn.Module):
    """Cases [B, M x 3, S, S], the M images along the channels, to scores [B, classes].

    `cnn` is as in `headless`. Of several images, one that is all 0 is missing.
    """

    def __init__(self, cnn: str, modalities: int, classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.cnn, width = headless(cnn)
        self.fc = (
            nn.Linear(width, classes) if modalities == 1 else Joint(modalities, width, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        if self.modalities == 1:
            return self.fc(self.cnn(images))
        present = shown(images, self.modalities)
        each = images.unflatten(1, (self.modalities, 3)).flatten(0, 1)
        features = self.cnn(each).unflatten(0, (-1, self.modalities)) * present
        return self.fc(features.flatten(1))


class Joint(nn.Module):
    """The features of M images [B, M x F] to scores [B, classes], by a hidden layer of F."""

    def __init__(self, modalities: int, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(modalities * width, width)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.dense(self.relu(self.hidden(features)))


def shown(images: Tensor, modalities: int) -> Tensor:
    """[B, M, 1]: 1 for each image of cases [B, M x 3, S, S], 0 for one that is all 0."""
    each = images.unflatten(1, (modalities, -1)).flatten(2)
    return (each != 0).any(dim=2, keepdim=True).to(images.dtype)


def headless(resnet: str) -> tuple[nn.Module, int]:
    """A ResNet from images [B, 3, S, S] to pooled features [B, F], and F.

    `resnet` is one of torchvision's, or `small_resnet`.
    """
    network = SmallResNet(1) if resnet == "small_resnet" else get_model(resnet)
    width = network.fc.in_features
    network.fc = nn.Identity()
    return network, width
