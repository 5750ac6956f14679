"""Networks for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from medtl.networks.registry import build
from medtl.training.device import give_back_freed_memory

LARGE = 100_000_000  # parameters: some of torchvision's networks take gigabytes


@pytest.fixture
def network_of() -> Iterator[Callable[[str, int], nn.Module]]:
    """Builds a network of three classes in which every parameter and every pixel matters.

    As they are built, some architectures have parameters that hide others: a head of zeros (ViT),
    residual branches scaled by 1e-6 (ConvNeXt). Those that start out constant get random values.
    And batch norm, before it has seen an image, lets the signal of deep networks fade.
    """

    sizes = []

    def make(architecture: str, image_size: int) -> nn.Module:
        network = build(architecture, classes=3, image_size=image_size, seed=0)
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            for parameter in network.parameters():
                if parameter.min() == parameter.max():
                    parameter += 0.1 * torch.randn(parameter.shape)
            layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
            momenta = [layer.momentum for layer in layers]
            for layer in layers:
                layer.momentum = 1.0
            if layers:
                network.train()(torch.rand(4, 3, image_size, image_size))
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
        return network.eval()

    yield make
    if max(sizes, default=0) > LARGE:
        # what a training in this process has set would keep them until its end
        give_back_freed_memory()
