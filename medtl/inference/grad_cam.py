"""Grad-CAM heat maps: the places of an image that raise a class score.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization", arXiv 1610.02391. It weighs the channels of the activation map at a cut of the
network, which may also be the token sequence of a transformer. A heat map shows the places that a
score depends on, not that the dependence is medically right.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.inference.explanation_cut import Explained
from medtl.inference.image_maps import as_map, places_a_side
from medtl.networks.graph import evaluating
from medtl.networks.partition import Cut


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

    Each channel of the map at the cut is weighted by the mean gradient of the class score; negative
    sums are dropped, and the largest of an image is 1. An image without a positive sum is all 0. Of
    several maps at the cut the sums are added, each times its number of places, which makes them
    shares of the score by area.

    Args:
        halves: the network, cut at the map (see `explanation_cut`).
        images: network input [B, 3, S, S], or cases [B, M x 3, S, S].
        class_index: one class per image, or one for all.

    Raises:
        MedtlError: no activation at the cut is a map.
    """
    crossing = halves.prefix(images)
    return _scaled([_sums(halves, crossing, images, class_index)], images)


def mean_grad_cam(
    network: Explained, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> np.ndarray:
    """Computes heat maps of an ensemble: the mean of its members' maps, as in `grad_cam`.

    A member's map counts by the size of its gradients, as its scores count in the mean. Only the
    mean is scaled to 1. The part that the members have in common runs once.

    Args:
        network: network or ensemble, cut at its maps.
        images: as in `grad_cam`.
        class_index: as in `grad_cam`.

    Raises:
        MedtlError: no activation at the cut is a map.
    """
    members = zip(network.cuts, network.crossings(images), strict=True)
    return _scaled([_sums(*each, images, class_index) for each in members], images)


def _scaled(members: Sequence[Sequence[Tensor]], images: Tensor) -> np.ndarray:
    """Adds the maps of a network to one of the images' size, 0 to 1, and averages its members'."""
    high, wide = images.shape[-2], images.shape[1] // 3 * images.shape[-1]
    heat = torch.zeros(len(images), high, wide, device=images.device)
    for maps in zip(*members, strict=True):
        mean = torch.stack(maps).mean(dim=0)
        places = mean.shape[-2:].numel() if len(members[0]) > 1 else 1
        heat += nn.functional.interpolate(places * mean, (high, wide), mode="bilinear")[:, 0]
    strongest = heat.amax(dim=(1, 2), keepdim=True)
    return (heat / strongest.clamp_min(torch.finfo(heat.dtype).tiny)).cpu().numpy()


def _sums(
    halves: Cut,
    crossing: Sequence[Tensor],
    images: Tensor,
    class_index: int | Sequence[int] | Tensor,
) -> list[Tensor]:
    """Returns the positive weighted sum of channels of each map at the cut: float32 [B, 1, H, W].

    `crossing` are the tensors at the cut, other arguments and errors as in `grad_cam`. Parameters
    collect no gradient.
    """
    count = images.shape[1] // 3
    places = [i for i, shape in enumerate(halves.shapes) if places_a_side(shape, count)]
    if not places:
        raise MedtlError(
            f"no activation at the cut {halves.point.name} is a map of the image; choose a cut "
            "nearer to the input"
        )
    with torch.inference_mode(False), torch.enable_grad(), evaluating(halves.suffix):
        tensors = [tensor.clone() for tensor in crossing]
        maps = [tensors[place].requires_grad_(True) for place in places]
        logits = halves.suffix(*tensors)
        classes = torch.as_tensor(class_index, device=logits.device).clone().expand(len(logits))
        score = logits.gather(1, classes[:, None]).sum()
        gradients = torch.autograd.grad(score, maps)
    sums = []
    for activation, gradient in zip(maps, gradients, strict=True):
        weights = as_map(gradient, count).float().mean(dim=(2, 3), keepdim=True)
        weighted = weights * as_map(activation.detach(), count).float()
        sums.append(weighted.sum(dim=1, keepdim=True).relu())
    return sums


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
