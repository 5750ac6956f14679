"""Layouts of the activations that are maps of an image, and whether they keep its places.

A convolution gives a map [C, H, W]. The tokens of a transformer are a map where each stays at the
place of its patch; their shape does not show it, so `alignments` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, fx, nn

from medtl.networks.graph import Graph, evaluating

# The images of a case lie side by side: a map of M images with a side of S places is S high and
# M x S wide.

MOST_PREFIX_TOKENS = 5
"""Most tokens before those of the patches: a class token and four registers (DINOv2), or a class
token and a distillation token (DeiT)."""


def places_a_side(shape: Sequence[int], images: int = 1) -> int:
    """Returns the side in places of the map that a tensor of this shape holds; 0 if it holds none.

    Maps are square: [C, H, W] (convolutions), [H, W, C] (Swin), or tokens [T, C] of H x W patches,
    with up to `MOST_PREFIX_TOKENS` class or register tokens before them (ViT). A shape that fits
    both of the first two is taken as the first. For a case of several `images`, either of the first
    two is [images, ...], and the tokens of all images are in one sequence.

    >>> places_a_side((512, 7, 7)), places_a_side((7, 7, 768)), places_a_side((197, 768))
    (7, 7, 14)
    """
    if len(shape) == 4:
        return places_a_side(shape[1:]) if images > 1 and shape[0] == images else 0
    if images == 1 and len(shape) == 3:
        side = shape[1] if shape[1] in (shape[0], shape[2]) else 0
    elif len(shape) == 2:
        side = math.isqrt(shape[0] // images)
        side = side if shape[0] - images * side**2 <= MOST_PREFIX_TOKENS else 0
    else:
        side = 0
    return side if side > 1 else 0


def as_map(tensor: Tensor, images: int = 1) -> Tensor:
    """Arranges a tensor [B, ...] as a map [B, C, H, images x W], without class or register tokens.

    Arguments as in `places_a_side`, which is above 0 for `tensor.shape[1:]`.
    """
    side = places_a_side(tensor.shape[1:], images)
    if tensor.ndim == 3:
        patches = tensor[:, -images * side**2 :].transpose(1, 2)
        return patches.unflatten(2, (images, side, side)).transpose(2, 3).flatten(3)
    if tensor.ndim == 5:
        each = as_map(tensor.flatten(0, 1)).unflatten(0, (-1, images))
        return each.permute(0, 2, 3, 1, 4).flatten(3)
    channels_first = tensor.shape[2] == tensor.shape[3]
    return tensor if channels_first else tensor.permute(0, 3, 1, 2)


CELLS = 4  # cells a side of the grid in which the alignment of a map is measured
CHANGE = 1.5  # of the pixels of a cell, in standard deviations of the network's input


def alignments(graph: Graph, nodes: Collection[fx.Node], image_size: int) -> dict[fx.Node, float]:
    """Measures whether activations that are maps keep the places of the image: up to 1, by node.

    Nodes without a value for each image are left out.

    Every other cell of a 4 x 4 grid over a random image is made brighter, one at a time (of a case,
    of its images in turn). The change of the map is compared between the cells at each place, which
    takes out what changes everywhere, and correlated with a Gaussian around the changed cell. A map
    that keeps its places has 0.7 or more; transposed, or ordered by windows, it has less than 0.4,
    and tokens that hold no place have about 0.

    The network's weights count: attention may mix tokens until they hold no place.
    """
    count = graph.channels // 3
    cells = [(row, column) for row in range(CELLS) for column in range(row % 2, CELLS, 2)]
    parameter = next(graph.network.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(graph.channels, image_size, image_size, generator=generator) / 2
    images = image.expand(1 + len(cells), -1, -1, -1).to(parameter, copy=True)
    bounds = [image_size * line // CELLS for line in range(CELLS + 1)]
    places = []
    for number, (row, column) in enumerate(cells):
        of = number % count
        rows, columns = (slice(bounds[line], bounds[line + 1]) for line in (row, column))
        images[1 + number, 3 * of : 3 * (of + 1), rows, columns] += CHANGE
        places.append((row, of * CELLS + column))
    changes = _Changes(graph, nodes)
    with evaluating(graph.network), torch.no_grad():
        changes.run(images)
    expected = _gaussians(places, count)
    return {node: _correlation(change, expected) for node, change in changes.found.items()}


def _gaussians(places: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Returns a Gaussian of one cell around each place, 0 in other images: [K, CELLS x M CELLS]."""
    rows, columns = torch.arange(CELLS), torch.arange(count * CELLS)
    found = []
    for row, column in places:
        squares = (rows - row)[:, None] ** 2 + (columns - column)[None] ** 2
        is_here = columns // CELLS == column // CELLS
        found.append((torch.exp(-squares / 2) * is_here).flatten())
    return torch.stack(found).double()


def _correlation(changes: Tensor, expected: Tensor) -> float:
    """Correlates changes [K, P] by K cells at P places with those expected; 0 if all are equal."""
    tiny = torch.finfo(changes.dtype).tiny
    shares = changes / changes.mean(dim=1, keepdim=True).clamp_min(tiny)
    shares = shares / shares.mean(dim=0, keepdim=True).clamp_min(tiny)
    found, wanted = (
        each - each.mean(dim=0, keepdim=True) - each.mean(dim=1, keepdim=True) + each.mean()
        for each in (shares, expected)
    )
    return float((found * wanted).sum() / (found.norm() * wanted.norm()).clamp_min(tiny))


class _Changes(fx.Interpreter):
    """Interpreter that measures how far maps of the other images are from that of the first.

    `found` has for each of `nodes` the sums over channels, in cells: float64 [K, CELLS x M CELLS].
    """

    def __init__(self, graph: Graph, nodes: Collection[fx.Node]) -> None:
        super().__init__(graph.network, graph=graph.nodes[0].graph)
        self.nodes = nodes
        self.count = graph.channels // 3
        self.batch = 0
        self.found: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        self.batch = self.batch or len(value)
        # a position embedding that is resized to the image has no images as its first axis
        if n in self.nodes and len(value) % self.batch == 0:
            each = value if len(value) == self.batch else value.unflatten(0, (self.batch, -1))
            maps = as_map(each, self.count).double().cpu()
            change = (maps[1:] - maps[:1]).abs().sum(dim=1, keepdim=True)
            cells = nn.functional.adaptive_avg_pool2d(change, (CELLS, self.count * CELLS))
            self.found[n] = cells.flatten(1)
        return value
