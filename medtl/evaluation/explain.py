"""Where in the image a network sees a class: Grad-CAM at a cut.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
localization", arXiv 1610.02391. The map that it weighs is what crosses the cut, so that no hook
is needed. A heat map says where the network looked, not that it was right to look there.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from medtl.errors import MedtlError
from medtl.evaluation.places import as_map, places_a_side
from medtl.networks.cut import Cut
from medtl.networks.graph import evaluating

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
