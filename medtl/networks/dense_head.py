"""A dense ReLU layer before the output layer of a network.

Boit & Zeng 2019 (Dakota State Annual Research Symposium 16) train one on the features of
DenseNet-121. The number of its units and its initial weights (PyTorch's default) are ours.
"""

from __future__ import annotations

from torch import Tensor, nn

from medtl.errors import ParameterError
from medtl.networks.graph import trace


class DenseHead(nn.Module):
    """Features [B, F] to scores [B, K]: a linear layer to `units`, ReLU, a linear layer."""

    def __init__(self, output: nn.Linear, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(output.in_features, units)
        self.output = nn.Linear(units, output.out_features)
        self.relu = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        """Computes scores [B, K] of features [B, F]."""
        return self.output(self.relu(self.hidden(features)))


def put_dense_layer(network: nn.Module, units: int) -> None:
    """Puts a dense ReLU layer of `units` before a network's output layer, in place.

    The output layer is the last with parameters. The module that takes its place has its name: the
    cut `head` is before the dense layer, and all before it keeps its names.

    Raises:
        ParameterError: the output layer is not linear.
    """
    *_, name = trace(network).layers
    output = network.get_submodule(name)
    if not isinstance(output, nn.Linear):
        raise ParameterError("hidden", units, f"0: the output layer {name} is not linear")
    network.set_submodule(name, DenseHead(output, units))
