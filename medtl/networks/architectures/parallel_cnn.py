"""`parallel_cnn`: convolutions of several sizes side by side, with residual connections.

After Alzubaidi et al. 2020, "Towards a better understanding of transfer learning for medical
imaging: a case study", Applied Sciences 10(13):4523, which describes traditional convolutions,
parallel convolutions and residual connections, then global average pooling; batch normalisation,
dropout and fully connected layers. The table of layers, and with it all widths, are our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops.misc import Conv2dNormActivation

from medtl.networks.registry import register_architecture

STEM = (32, 64)
KERNELS = (1, 3, 5, 7)
BRANCHES = (16, 16, 32, 32, 64, 64)  # the width of each of the four branches of a block
HIDDEN = 128
DROPOUT = 0.5


class ParallelBlock(nn.Module):
    """Maps [B, C, H, W] to [B, 4 x `branch`, H, W]: four convolutions, and a shortcut."""

    def __init__(self, channels: int, branch: int) -> None:
        super().__init__()
        width = len(KERNELS) * branch
        self.branches = nn.ModuleList(
            Conv2dNormActivation(channels, branch, kernel_size=kernel) for kernel in KERNELS
        )
        self.shortcut = (
            nn.Identity()
            if channels == width
            else Conv2dNormActivation(channels, width, kernel_size=1, activation_layer=None)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Adds the four branches, joined along the channels, and the shortcut."""
        joined = torch.cat([branch(features) for branch in self.branches], dim=1)
        return joined + self.shortcut(features)


@register_architecture("parallel_cnn", image_size=224)
class ParallelCNN(nn.Module):
    """Images [B, 3, S, S], S at least 32, to scores [B, classes].

    Two convolutions with stride 2, then six parallel blocks; the map is halved after the second
    and after the fourth. Every convolution has batch norm and ReLU (a shortcut no ReLU).
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        narrow, wide = STEM
        self.conv1 = Conv2dNormActivation(3, narrow, kernel_size=3, stride=2)
        self.conv2 = Conv2dNormActivation(narrow, wide, kernel_size=3, stride=2)
        widths = (wide, *(len(KERNELS) * branch for branch in BRANCHES))
        blocks = [ParallelBlock(*each) for each in zip(widths, BRANCHES, strict=False)]
        self.block1, self.block2, self.block3, self.block4, self.block5, self.block6 = blocks
        self.maxpool = nn.MaxPool2d(kernel_size=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Linear(widths[-1], HIDDEN)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc2 = nn.Linear(HIDDEN, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Computes scores [B, classes] of images [B, 3, S, S]."""
        features = self.conv2(self.conv1(images))
        features = self.maxpool(self.block2(self.block1(features)))
        features = self.maxpool(self.block4(self.block3(features)))
        features = torch.flatten(self.avgpool(self.block6(self.block5(features))), 1)
        return self.fc2(self.dropout(self.relu(self.fc1(features))))
