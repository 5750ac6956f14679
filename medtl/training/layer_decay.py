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
    layers, blocks = trace(network).layers, cut_points(network, "blocks")
    branches = network.branches if isinstance(network, Composed) else ()
    shares = {}
    for name, _ in network.named_parameters():
        layer = name
        while layer and layer not in layers:
            layer = layer.rpartition(".")[0]
        if layer:
            others = [each for each in branches if not is_within(name, each)]
            steps = sum(
                block.position > layers[layer]
                and not any(is_within(block.name, other) for other in others)
                for block in blocks
            )
            shares[name] = decay**steps
    return shares
