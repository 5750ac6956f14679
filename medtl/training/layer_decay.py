"""Layer-wise learning rate decay: smaller learning rates for earlier blocks.

Clark et al. 2020 (ELECTRA, arXiv 2003.10555); for vision transformers Bao et al. 2022 (BEiT, arXiv
2106.08254). Both count transformer layers; here a step is a block as `cut_points` lists them, so
that every network has them.
"""

from __future__ import annotations

from torch import nn

from medtl.networks.cutoffs import cut_points
from medtl.networks.graph import Composed, is_within, trace


def rate_shares(network: nn.Module, decay: float) -> dict[str, float]:
    """Returns the share of the learning rate of every parameter, by its name.

    1 for the head, `decay` for the block before it, `decay` ** 2 for the one before that. A block
    has the same share whatever the cut-off. In a network of branches the blocks of each are
    counted by themselves. Parameters that no operation reads are left out.
    """
    return {name: decay**steps for name, steps in blocks_after(network).items()}


def blocks_after(network: nn.Module) -> dict[str, int]:
    """Returns how many blocks come after that of a parameter, by its name; 0 for the head.

    Of a network of branches, blocks of the same branch count.
    """
    blocks = cut_points(network, "blocks")
    branches = network.branches if isinstance(network, Composed) else ()
    found = {}
    for name, place in parameter_places(network).items():
        others = [each for each in branches if not is_within(name, each)]
        found[name] = sum(
            block.position > place and not any(is_within(block.name, other) for other in others)
            for block in blocks
        )
    return found


def parameter_places(network: nn.Module) -> dict[str, int]:
    """Returns the place of the operation that first uses the layer of a parameter, by its name."""
    layers = trace(network).layers
    places = {}
    for name, _ in network.named_parameters():
        layer = name
        while layer and layer not in layers:
            layer = layer.rpartition(".")[0]
        if layer:
            places[name] = layers[layer]
    return places
