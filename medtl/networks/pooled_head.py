"""The output layer of SqueezeNet, moved behind the pooling.

Torchvision's SqueezeNet ends with a 1 x 1 convolution, a ReLU and global average pooling. The ReLU
keeps scores at or above 0, which leaves a finding no probability under one half, and it makes the
head of other classes a problem with poor optima. Without it the convolution is a linear layer on
pooled features, as in other networks.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

OUTPUT = "classifier.1"  # the name of the output layer in both forms


def pool_before_output(network: nn.Module) -> None:
    """Replaces the head of a SqueezeNet by pooling and a linear layer, in place.

    The new layer has the initial weights that PyTorch gives a linear layer.
    """
    convolution = network.get_submodule(OUTPUT)
    assert isinstance(convolution, nn.Conv2d)
    pooling = nn.Sequential(nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    output = nn.Linear(convolution.in_channels, convolution.out_channels)
    network.classifier = nn.Sequential(pooling, output)


def restore_convolution(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a SqueezeNet torchvision's own head again where stored weights are of that form.

    Models logged by version 0.1 have it. Other networks and states are left as they are.
    """
    weight = state.get(f"{OUTPUT}.weight")
    output = getattr(network, "classifier", None)
    is_ours = isinstance(output, nn.Sequential) and isinstance(output[0], nn.Sequential)
    if weight is None or weight.ndim != 4 or not is_ours:
        return
    classes, channels = weight.shape[:2]
    network.classifier = nn.Sequential(
        nn.Dropout(), nn.Conv2d(channels, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
