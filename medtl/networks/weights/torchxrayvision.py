"""torchxrayvision (Cohen et al. 2022, arXiv 2111.00595): DenseNet and ResNet for chest radiographs.

The DenseNets have torchvision's names (`features.denseblock1.denselayer1.norm1.weight`), the
ResNets these under `model.`. The first convolution has one channel. Images are scaled to
-1024..1024. `op_threshs`, the operating points of the classes, tell such a file from others.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_OPERATING_POINTS = "op_threshs"
MEAN, STD = 0.5, 1 / 2048
"""Normalisation of images from 0 to 1 to -1024..1024."""


def is_of_torchxrayvision(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether a file says that it is one of torchxrayvision's."""
    return any(name.rpartition(".")[2] == _OPERATING_POINTS for name in tensors)
