"""`small_resnet`: a residual network small enough to be pretrained on two processor cores.

The residual blocks are torchvision's (He et al. 2016, "Deep residual learning for image
recognition", arXiv 1512.03385). The widths are our choice: 2,400 images of 96 pixels train in a
minute. Meant for the embedded phantoms; real images need a larger network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from medtl.networks.registry import register_architecture

WIDTHS = (16, 24, 48, 96, 96)


@register_architecture("small_resnet", image_size=96, output_layer="fc")
class SmallResNet(nn.Module):
    """Images [B, 3, S, S] to scores [B, classes]; the stem and three of four blocks halve S."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        stem, first, second, third, fourth = WIDTHS
        self.conv1 = nn.Conv2d(3, stem, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _block(stem, first, stride=2)
        self.layer2 = _block(first, second, stride=2)
        self.layer3 = _block(second, third, stride=2)
        self.layer4 = _block(third, fourth, stride=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(fourth, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Computes scores [B, classes] of images [B, 3, S, S]."""
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        return self.fc(torch.flatten(self.avgpool(features), 1))


def _block(width_in: int, width_out: int, stride: int) -> BasicBlock:
    shortcut = None
    if stride > 1 or width_in != width_out:
        shortcut = nn.Sequential(
            nn.Conv2d(width_in, width_out, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(width_out),
        )
    return BasicBlock(width_in, width_out, stride, shortcut)
