"""LoRA: low-rank adapters on the attention layers of a transformer (`transfer=lora`).

Hu et al. 2022, "LoRA: Low-rank adaptation of large language models", arXiv 2106.09685: the weights
W of attention stay frozen, and W + B A is computed in their place, with trained B [out, r] and
A [r, in]. B begins with zeros, so that training begins with the pretrained network. Ours: all
projections of attention, also the joint one of query, key and value; the scale alpha / r is 1.

Adapters are parametrizations of PyTorch. They hold for linear layers and for the weights that
`nn.MultiheadAttention` reads directly, and are added up with W in the end: the network has then the
layers and the names that it had before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from medtl.networks.graph import is_within
from medtl.training.layer_decay import blocks_after, parameter_places


class _Adapter(nn.Module):
    """Adds a product of rank `rank` to a weight [out, in]."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, columns))
        self.up = nn.Parameter(weight.new_zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as nn.Linear

    def forward(self, weight: Tensor) -> Tensor:
        """Returns the adapted weight."""
        return weight + self.up @ self.down


def attention_weights(network: nn.Module, trained: nn.Module) -> list[str]:
    """Returns the names of the weights [out, in] of attention in the trained part of a network.

    Attention layers are the modules whose type has Attention in its name.
    """
    paths = [path for path, each in network.named_modules() if "Attention" in type(each).__name__]
    return [
        name
        for name, weight in trained.named_parameters()
        if weight.ndim == 2
        and name.endswith("weight")
        and any(is_within(name, path) for path in paths)
    ]


def last_attention(network: nn.Module) -> int:
    """Returns the place of the last attention layer in the graph of a network; -1 without any."""
    places = parameter_places(network)
    return max((places[name] for name in attention_weights(network, network)), default=-1)


@contextmanager
def adapted(network: nn.Module, trained: nn.Module, rank: int, seed: int) -> Iterator[None]:
    """Trains adapters and the head alone within the block, then merges the adapters.

    `trained` is the part of `network` from the cut-off on; `seed` draws the adapters.
    """
    names, blocks = attention_weights(network, trained), blocks_after(network)
    for name, parameter in trained.named_parameters():
        parameter.requires_grad_(blocks.get(name) == 0)
    split = [name.rpartition(".") for name in names]
    places = [(trained.get_submodule(path), weight) for path, _, weight in split]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapters = [_Adapter(getattr(*place).detach().cpu(), rank) for place in places]
    for (module, weight), adapter in zip(places, adapters, strict=True):
        device = getattr(module, weight).device
        parametrize.register_parametrization(module, weight, adapter.to(device))
    try:
        yield
    finally:
        for module, weight in places:
            parametrize.remove_parametrizations(module, weight)
        trained.requires_grad_(True)
