"""Heat maps by Captum: occlusion and integrated gradients.

Occlusion after Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", arXiv
1311.2901. It needs no gradient, so it works for any scores, and one forward pass per covered place.
The paper covers with grey, which stands out in bright and dark regions; here a place is covered
with the blurred image, after Fong & Vedaldi 2017, "Interpretable explanations of black boxes by
meaningful perturbation", arXiv 1704.03296, which removes local detail only.

Integrated gradients after Sundararajan et al. 2017, "Axiomatic attribution for deep networks",
arXiv 1703.01365, on the path from a constant image of the same mean to the image. They have a finer
resolution. The values of single pixels are mostly noise that follows the image: with negative
values dropped, maps of random weights resemble the image too. So neighbouring pixels are summed
with their signs first.

Missing images of a case have no heat by either method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from medtl.networks.graph import evaluating

Scores = Callable[[Tensor], Tensor]
"""Scores [B, classes] of images [B, M x 3, S, S] as a network takes them."""

PLACES = 8  # side of a map by occlusion, in places
COVERED = 2  # side of a covered square, in places; squares overlap
SILENT = 1e-5  # share of the largest score; smaller drops are rounding errors
STEPS = 16  # of the integral from the constant image to the image
PIXELS = 2**20  # per forward pass, which bounds its memory
# Standard deviations of Gaussian blurs as shares of the side: of a cover, and of a sum over
# neighbouring pixels.
COVER, NEIGHBOURS = 1 / 8, 1 / 32


def occlusion(
    scores: Scores, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> np.ndarray:
    """Maps the drop of a class score when a place is covered: float32 [B, S, M x S], 0 to 1.

    A square of a quarter of the side is blurred and moved by half its width: 49 forward passes per
    image of a sample. Rises of the score are dropped, and the largest drop of an image is 1. An
    image without any drop is all 0.

    Args:
        scores: scores of images; a network in eval mode.
        images: network input [B, M x 3, S, S], with M = 1 except for cases of M images.
        class_index: one class per sample, or one for all.
    """
    # importing captum imports pyplot, which takes half a second
    from captum.attr import Occlusion

    side = images.shape[-1]
    stride = -(-side // PLACES)
    window = (3, COVERED * stride, COVERED * stride)
    method, maps = Occlusion(scores), []
    for image, index in _one_by_one(images, class_index):
        fall = method.attribute(
            image,
            sliding_window_shapes=window,
            strides=(3, stride, stride),
            baselines=_blurred(image, COVER),
            target=index,
            perturbations_per_eval=_at_a_time(image),
        )
        places = nn.functional.adaptive_avg_pool2d(_of_images(fall / 3), PLACES)
        with torch.no_grad():
            places = places * (places > SILENT * scores(image).abs().max())
        heat = nn.functional.interpolate(places, (side, side), mode="bilinear")
        maps.append(_scaled(heat))
    return np.stack(maps)


def integrated_gradients(
    network: nn.Module, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> np.ndarray:
    """Maps the contributions of places to a class score: float32 [B, S, M x S], 0 to 1.

    Negative contributions are dropped, and the largest of an image is 1. Arguments as in
    `occlusion`. The parameters of the network collect no gradient.
    """
    from captum.attr import IntegratedGradients

    method, maps = IntegratedGradients(network), []
    with torch.inference_mode(False), torch.enable_grad(), evaluating(network):
        for image, index in _one_by_one(images.clone(), class_index):
            added = method.attribute(
                image,
                baselines=even(image),
                target=index,
                n_steps=STEPS,
                internal_batch_size=_at_a_time(image),
            )
            heat = _blurred(_of_images(added.detach()), NEIGHBOURS).relu()
            maps.append(_scaled(heat))
    return np.stack(maps)


def even(images: Tensor) -> Tensor:
    """Returns constant images: each channel of [B, M x 3, S, S] at its mean."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def _one_by_one(
    images: Tensor, class_index: int | Sequence[int] | Tensor
) -> Iterator[tuple[Tensor, int]]:
    classes = torch.as_tensor(class_index).expand(len(images)).tolist()
    return zip(images.split(1), classes, strict=True)


def _at_a_time(image: Tensor) -> int:
    """Returns the batch size for images like this one [1, M x 3, S, S]."""
    return max(1, 3 * PIXELS // image.numel())


def _of_images(attributed: Tensor) -> Tensor:
    """Sums attributions per channel [1, M x 3, S, S] over colours: [1, M, S, S]."""
    return attributed.float().unflatten(1, (-1, 3)).sum(dim=2)


def _blurred(maps: Tensor, share: float) -> Tensor:
    sigma = share * maps.shape[-1]
    return gaussian_blur(maps, 2 * math.ceil(2 * sigma) + 1, sigma)


def _scaled(heat: Tensor) -> np.ndarray:
    """Scales heat [1, M, S, S] to 0..1, images side by side: float32 [S, M x S]."""
    shares = heat[0] / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)
    return shares.permute(1, 0, 2).flatten(1).cpu().numpy()
