"""The blocks of a network: the coarse places to cut."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torchvision.models.maxvit import MaxVitBlock
from torchvision.models.regnet import AnyStage
from torchvision.models.resnet import ResNet
from torchvision.models.vision_transformer import Encoder

from medtl.networks.composed import Composed
from medtl.networks.graph import Graph, has_parameters

# These only line up blocks (a ResNet where it is a part of a larger network). Any other module that
# has children is a block.
_LINES_OF_BLOCKS = (nn.Sequential, nn.ModuleList, AnyStage, Encoder, MaxVitBlock, ResNet)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)


def block_names(graph: Graph) -> list[str]:
    """The names of a network's blocks in forward order.

    A block is a residual, dense, inception or transformer block as torchvision builds it; or a run
    of plain layers up to a pooling layer (a VGG block), named by the first of them; or a linear
    layer. What has no parameters belongs to the block before it. Block-wise fine-tuning is that of
    Kandel & Castelli, 2020, How deeply to fine-tune a convolutional neural network,
    doi:10.3390/app10103359; where a block begins in each architecture is ours.
    """
    if isinstance(graph.network, Composed):
        return list(graph.network.blocks)
    units = [
        (position, name, module)
        for name, module in _units(graph.network, "")
        if (position := graph.position(name)) is not None
    ]
    units.sort(key=lambda unit: unit[0])
    names = []
    in_run = False
    for _, name, module in units:
        if not has_parameters(module):
            in_run = in_run and not isinstance(module, _POOLS)
            continue
        is_plain = not any(module.children()) and not isinstance(module, nn.Linear)
        if not (is_plain and in_run):
            names.append(name)
        in_run = is_plain
    return names


def _units(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if type(child) in _LINES_OF_BLOCKS:
            yield from _units(child, child_path)
        else:
            yield child_path, child
