"""Grad-CAM heat maps: where in the image a network sees a class.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization", arXiv 1610.02391. The map that it weighs is what crosses the cut, so that no hook
is needed. A heat map says where the network looked, not that it was right to look there.
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
from medtl.networks.graph import Graph, evaluating, trace
from medtl.networks.partition import Cut, cut

# The images of a case lie side by side: a map of M images with S places a side is S high, M x S
# wide.


def places_a_side(shape: Sequence[int], images: int = 1) -> int:
    """How many places a side has the map of one image, in a tensor of this shape; 0 if it is none.

    Maps are square: [C, H, W] (convolutions), [H, W, C] (Swin), or tokens [T, C] of H x W patches,
    with or without a class token before them (ViT). A shape that could be both of the first two
    is taken as the first. Of a case of several `images` either of the first two is [images, ...],
    and the tokens of all are in one sequence.
    """
    if len(shape) == 4:
        return places_a_side(shape[1:]) if images > 1 and shape[0] == images else 0
    if images == 1 and len(shape) == 3:
        side = shape[1] if shape[1] in (shape[0], shape[2]) else 0
    elif len(shape) == 2:
        side = math.isqrt(shape[0] // images)
        side = side if shape[0] - images * side**2 in (0, 1) else 0
    else:
        side = 0
    return side if side > 1 else 0


def as_map(tensor: Tensor, images: int = 1) -> Tensor:
    """A tensor [B, ...] with places as a map [B, C, H, images x W]; a class token is dropped."""
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
    """Images [B, C, S, S] as they are; those of cases [B, M, C, S, S] as [B, C, S, M x S]."""
    if images.ndim == 4:
        return images
    return np.concatenate(list(np.moveaxis(images, 1, 0)), axis=-1)


# Dark to bright, ordered in lightness also for colour-blind readers (after matplotlib's inferno).
HEAT = np.array([[20, 11, 53], [120, 28, 109], [207, 68, 70], [251, 155, 6], [252, 255, 164]])
HEAT_OPACITY = 0.65


def grad_cam(halves: Cut, images: Tensor, class_index: int | Sequence[int] | Tensor) -> np.ndarray:
    """What speaks for a class, place by place: float32 [B, S, S] (cases [B, S, M x S]), 0 to 1.

    The map is the first tensor that crosses the cut and has places. Each of its channels is weighed
    by the mean gradient of the class score; what speaks against the class is dropped, and the
    strongest place of an image is 1. An image in which nothing speaks for the class is all 0.

    Args:
        halves: the network, cut where the map is to be taken: `explanation_cut` finds a good one.
        images: [B, 3, S, S], as the network takes them, or cases [B, M x 3, S, S].
        class_index: a class for each image, or one for all.

    Raises:
        MedtlError: nothing that crosses the cut has places.
    """
    activation, gradient = _map_and_gradient(halves, images, class_index)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * activation).sum(dim=1, keepdim=True).relu()
    high, wide = images.shape[-2], images.shape[1] // 3 * images.shape[-1]
    heat = nn.functional.interpolate(heat, (high, wide), mode="bilinear")[:, 0]
    strongest = heat.amax(dim=(1, 2), keepdim=True)
    return (heat / strongest.clamp_min(torch.finfo(heat.dtype).tiny)).cpu().numpy()


def _map_and_gradient(
    halves: Cut, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> tuple[Tensor, Tensor]:
    """The map that crosses the cut and the gradient of the class score on it, float32 [B, C, H, W].

    Arguments and errors as in `grad_cam`. Parameters collect no gradient.
    """
    count = images.shape[1] // 3
    with_places = (i for i, shape in enumerate(halves.shapes) if places_a_side(shape, count))
    place = next(with_places, None)
    if place is None:
        raise MedtlError(
            f"nothing that crosses the cut at {halves.point.name} has places in the image; "
            "cut nearer to the images"
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
    """`overlaid`, as a PNG (RGB)."""
    file = io.BytesIO()
    Image.fromarray(overlaid(image, heat)).save(file, "PNG")
    return file.getvalue()


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image with its heat laid over it, uint8 [H, W, 3].

    `image` [C, H, W] (uint8 or uint16, grey or RGB), `heat` [H, W] from 0 (the image shows
    through) to 1.
    """
    white = np.iinfo(image.dtype).max
    grey_or_rgb = image.transpose(1, 2, 0) * (255 / white)
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, steps, channel) for channel in HEAT.T], axis=-1)
    opacity = HEAT_OPACITY * heat[..., None]
    return np.round((1 - opacity) * grey_or_rgb + opacity * colours).astype(np.uint8)


# Ours: a map with fewer places a side says too little about where.
LEAST_SIDE = 4


def explanation_cut(network: nn.Module, image_size: int) -> Cut:
    """The deepest cut that only a map of at least 4 x 4 places crosses, which the scores depend on.

    In convolutional networks that is what the last pooling takes, as in the Grad-CAM paper; where
    that is smaller, the output of the stage before. In a ViT it is the input of the last block:
    after its attention only the class token is read. Cutting changes which parameters of the
    network ask for a gradient.

    Raises:
        MedtlError: the network has no such map at this image size.
    """
    point = next(_lone_maps(network, image_size), None)
    if point is None:
        raise MedtlError(
            f"{type(network).__name__} has no map of {LEAST_SIDE} x {LEAST_SIDE} places at "
            f"image_size {image_size} to explain its scores with; use larger images"
        )
    return cut(network, point, image_size)


def _lone_maps(network: nn.Module, image_size: int) -> Iterator[CutPoint]:
    """The points that a map crosses and nothing else that depends on the image, deepest first."""
    graph = trace(network)
    values, gradients = _values_and_gradients(network, graph, image_size)
    images = graph.channels // 3
    last_use = {node: max(graph.places[user] for user in node.users) for node in values}
    for node in reversed(values):
        gradient = gradients[node]
        if len(gradient) > 1:  # the images of the case are folded into the batch
            gradient = gradient[None]
        if node.op == "placeholder" or places_a_side(gradient.shape[1:], images) < LEAST_SIDE:
            continue
        place = graph.places[node]
        crossing = [each for each, last in last_use.items() if graph.places[each] <= place < last]
        if crossing == [node] and as_map(gradient, images).any():
            yield CutPoint(f"operation {place + 1}", place + 1)


def _values_and_gradients(
    network: nn.Module, graph: Graph, image_size: int
) -> tuple[dict[fx.Node, Tensor], dict[fx.Node, Tensor]]:
    """The tensors that a random image becomes on its way to the scores, in forward order.

    With the gradient of the sum of the scores on each.
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
    """Runs a network operation by operation and keeps the value of each."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.values: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.values[n] = super().run_node(n)
        return self.values[n]
