"""Print where a network can be cut, and what each cut costs."""

from __future__ import annotations

from medtl.networks.cutoffs import cut_points
from medtl.networks.flops import cut_costs
from medtl.networks.pretrained import preprocessing
from medtl.networks.registry import build, check_architecture

CLASSES = 2  # of the head that is built to be counted


def list_cutoffs(architecture: str, image_size: int) -> None:
    """Prints every cut-off in forward order with parameters and share of compute on each side.

    A star marks the coarse cut-offs (`cutoffs=blocks`). `image_size` 0 is that of the weights.
    """
    check_architecture(architecture)
    size = image_size or preprocessing(architecture).image_size
    network = build(architecture, CLASSES, size, seed=0)
    blocks = {point.position for point in cut_points(network, "blocks")}
    costs = cut_costs(network, "layers", size)
    width = max(len(cost.point.name) for cost in costs)
    print(f"{architecture} at {size} px; * is a coarse cut-off; all = the first, head = the last")
    print(f"  {'cut-off':<{width}}  {'frozen':>12}  {'trained':>12}  compute frozen  trained")
    for cost in costs:
        star = "*" if cost.point.position in blocks else " "
        trained = 100 * cost.trained_share
        print(
            f"{star} {cost.point.name:<{width}}  {cost.frozen_parameters:>12,}  "
            f"{cost.trained_parameters:>12,}  {100 - trained:>12.1f} %  {trained:>5.1f} %"
        )
