"""Grad-CAM heat maps: the places of an image that raise a class score.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization", arXiv 1610.02391. It weighs the channels of the activation map at a cut of the
network, which may also be the token sequence of a transformer. A heat map shows the places that a
score depends on, not that the dependence is medically right.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, fx, nn

from medtl.errors import MedtlError
from medtl.networks.cutoffs import CutPoint
from medtl.networks.ensemble import members_of
from medtl.networks.graph import Graph, evaluating, trace
from medtl.networks.partition import Cut, cut

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


def side_by_side(images: np.ndarray) -> np.ndarray:
    """Joins the images of cases [B, M, C, S, S] to [B, C, S, M x S]; [B, C, S, S] is unchanged."""
    if images.ndim == 4:
        return images
    return np.concatenate(list(np.moveaxis(images, 1, 0)), axis=-1)


# Dark to bright, ordered in lightness also for colour-blind readers (after matplotlib's inferno).
HEAT = np.array([[20, 11, 53], [120, 28, 109], [207, 68, 70], [251, 155, 6], [252, 255, 164]])
HEAT_OPACITY = 0.65


def grad_cam(halves: Cut, images: Tensor, class_index: int | Sequence[int] | Tensor) -> np.ndarray:
    """Computes heat maps of a class, 0 to 1: float32 [B, S, S], for cases [B, S, M x S].

    Takes the first activation at the cut that is a map. Each of its channels is weighted by the
    mean gradient of the class score; negative sums are dropped, and the largest of an image is 1.
    An image without a positive sum is all 0.

    Args:
        halves: the network, cut at the map (see `explanation_cut`).
        images: network input [B, 3, S, S], or cases [B, M x 3, S, S].
        class_index: one class per image, or one for all.

    Raises:
        MedtlError: no activation at the cut is a map.
    """
    return mean_grad_cam([halves], images, class_index)


def mean_grad_cam(
    members: Sequence[Cut], images: Tensor, class_index: int | Sequence[int] | Tensor
) -> np.ndarray:
    """Computes heat maps of an ensemble: the mean of its members' maps, as in `grad_cam`.

    A member's map counts by the size of its gradients, as its scores count in the mean. Only the
    mean is scaled to 1.

    Args:
        members: each network, cut at the map (see `explanation_cuts`).
        images: as in `grad_cam`.
        class_index: as in `grad_cam`.

    Raises:
        MedtlError: no activation at the cut is a map.
    """
    heats = []
    for halves in members:
        activation, gradient = _map_and_gradient(halves, images, class_index)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        heats.append((weights * activation).sum(dim=1, keepdim=True).relu())
    mean = torch.stack(heats).mean(dim=0)
    high, wide = images.shape[-2], images.shape[1] // 3 * images.shape[-1]
    heat = nn.functional.interpolate(mean, (high, wide), mode="bilinear")[:, 0]
    strongest = heat.amax(dim=(1, 2), keepdim=True)
    return (heat / strongest.clamp_min(torch.finfo(heat.dtype).tiny)).cpu().numpy()


def _map_and_gradient(
    halves: Cut, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the map at the cut and the gradient of the class score on it: float32 [B, C, H, W].

    Arguments and errors as in `grad_cam`. Parameters collect no gradient.
    """
    count = images.shape[1] // 3
    with_places = (i for i, shape in enumerate(halves.shapes) if places_a_side(shape, count))
    place = next(with_places, None)
    if place is None:
        raise MedtlError(
            f"no activation at the cut {halves.point.name} is a map of the image; choose a cut "
            "nearer to the input"
        )
    with torch.inference_mode(False), torch.enable_grad(), evaluating(halves.suffix):
        crossing = [tensor.clone() for tensor in halves.prefix(images)]
        crossing[place].requires_grad_(True)
        logits = halves.suffix(*crossing)
        classes = torch.as_tensor(class_index, device=logits.device).clone().expand(len(logits))
        score = logits.gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, crossing[place])
    return as_map(crossing[place].detach(), count).float(), as_map(gradient, count).float()


def heatmap_png(image: np.ndarray, heat: np.ndarray) -> bytes:
    """Encodes the result of `overlaid` as a PNG file (RGB)."""
    file = io.BytesIO()
    Image.fromarray(overlaid(image, heat)).save(file, "PNG")
    return file.getvalue()


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blends an image with its heat map: uint8 [H, W, 3].

    Args:
        image: uint8 or uint16 [C, H, W], grey or RGB.
        heat: [H, W] from 0 (only the image is visible) to 1.
    """
    white = np.iinfo(image.dtype).max
    grey_or_rgb = image.transpose(1, 2, 0) * (255 / white)
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, steps, channel) for channel in HEAT.T], axis=-1)
    opacity = HEAT_OPACITY * heat[..., None]
    return np.round((1 - opacity) * grey_or_rgb + opacity * colours).astype(np.uint8)


LEAST_SIDE = 4  # places; a smaller map is too coarse (our choice)


def explanation_cut(network: nn.Module, image_size: int) -> Cut:
    """Cuts a network at its deepest map of at least 4 x 4 places on which the scores depend.

    No other activation that depends on the image may cross the cut, and no layer may be used on
    both sides. In convolutional networks this is the input of the last pooling, as in the Grad-CAM
    paper, or if that is smaller, the output of the stage before. In a ViT with a class token it is
    the input of the last block, since the head reads only the class token after its attention. The
    cut sets `requires_grad` of the parameters.

    Raises:
        MedtlError: the network has no such map at this image size.
    """
    for point in _lone_maps(network, image_size):
        try:
            return cut(network, point, image_size)
        except MedtlError:  # a layer is used on both sides
            continue
    raise MedtlError(
        f"{type(network).__name__} has no map of {LEAST_SIDE} x {LEAST_SIDE} places at image_size "
        f"{image_size} to explain its scores with: use larger images, or a network without "
        "branches side by side"
    )


def explanation_cuts(network: nn.Module, image_size: int) -> list[Cut]:
    """Cuts each member of an ensemble as `explanation_cut`, at one point; else the network itself.

    Raises:
        MedtlError: as `explanation_cut`.
    """
    first, *others = members_of(network)
    halves = explanation_cut(first, image_size)
    return [halves, *(cut(each, halves.point, image_size) for each in others)]


def _lone_maps(network: nn.Module, image_size: int) -> Iterator[CutPoint]:
    """Yields the cut points at which a map is all that depends on the image, deepest first."""
    graph = trace(network)
    values, gradients = _values_and_gradients(network, graph, image_size)
    images = graph.channels // 3
    last_use = {node: max(graph.places[user] for user in node.users) for node in values}
    sides = {node: _side(gradient, images) for node, gradient in gradients.items()}
    # Hiera orders its tokens by windows until they are those of its last stage
    is_reordered = hasattr(network, "unroll")
    coarsest = min(filter(None, sides.values()), default=0)
    for node in reversed(values):
        if node.op == "placeholder" or sides[node] < LEAST_SIDE:
            continue
        if is_reordered and sides[node] > coarsest:
            continue
        place = graph.places[node]
        crossing = [each for each, last in last_use.items() if graph.places[each] <= place < last]
        gradient = gradients[node] if len(gradients[node]) == 1 else gradients[node][None]
        if crossing == [node] and as_map(gradient, images).any():
            yield CutPoint(f"operation {place + 1}", place + 1)


def _side(gradient: Tensor, images: int) -> int:
    """Returns the side in places of the map of a case; 0 if it is none."""
    folded = len(gradient) > 1  # the images of the case are folded into the batch
    return places_a_side(gradient.shape if folded else gradient.shape[1:], images)


def _values_and_gradients(
    network: nn.Module, graph: Graph, image_size: int
) -> tuple[dict[fx.Node, Tensor], dict[fx.Node, Tensor]]:
    """Returns the activations of a random image in forward order, and the gradient on each.

    The gradient is that of the sum of the scores.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, graph.channels, image_size, image_size, generator=generator)
    images = images.to(next(network.parameters())).requires_grad_(True)
    recorder = _Recorder(network, graph=graph.nodes[0].graph)
    of_images = {graph.nodes[0]}
    for node in graph.nodes:
        if not of_images.isdisjoint(node.all_input_nodes) and node.users:
            of_images.add(node)
    with evaluating(network), torch.inference_mode(False), torch.enable_grad():
        scores = recorder.run(images)
        values = {
            node: value
            for node, value in recorder.values.items()
            if node in of_images and isinstance(value, Tensor) and value.requires_grad
        }
        gradients = torch.autograd.grad(
            scores.sum(), list(values.values()), allow_unused=True, materialize_grads=True
        )
    return values, dict(zip(values, gradients, strict=True))


class _Recorder(fx.Interpreter):
    """Interpreter of a traced network that records the value of each operation."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.values[n] = super().run_node(n)
        return self.values[n]
