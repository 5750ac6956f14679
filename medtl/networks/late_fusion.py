"""`late_fusion`: one CNN over every image of a case, the features joined before the dense head.

The usual CNN baseline of multi-modal networks, against which TransMed (Dai, Gao & Liu 2021,
Diagnostics 11(8):1384) is set. Ours: the CNN's weights are shared by the modalities.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import get_model


class LateFusion(nn.Module):
    """Cases [B, M x 3, S, S], the M images along the channels, to scores [B, classes].

    `cnn` is one of torchvision's ResNets.
    """

    def __init__(self, cnn: str, modalities: int, classes: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.cnn, width = headless(cnn)
        self.fc = nn.Linear(modalities * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        each = images.unflatten(1, (self.modalities, 3)).flatten(0, 1)
        features = self.cnn(each).unflatten(0, (-1, self.modalities))
        return self.fc(features.flatten(1))


def headless(resnet: str) -> tuple[nn.Module, int]:
    """A ResNet from images [B, 3, S, S] to pooled features [B, F], and F."""
    network = get_model(resnet)
    width = network.fc.in_features
    network.fc = nn.Identity()
    return network, width
