"""Heat maps by Captum: occlusion and integrated gradients.

Occlusion after Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", arXiv
1311.2901: it needs no gradient, so that anything that gives scores has such maps, and a pass for
each place that is covered. Theirs is covered with grey, which stands out where the image is bright
or dark; here with the image blurred, after Fong & Vedaldi 2017, "Interpretable explanations of
black boxes by meaningful perturbation", arXiv 1704.03296: what is local is lost, and no more.

Integrated gradients after Sundararajan et al. 2017, "Axiomatic attribution for deep networks",
arXiv 1703.01365, on the way from an even image of the same mean grey to the image: finer.

What integrated gradients say of single pixels is mostly noise whose strength follows the image:
dropped where it is negative, it leaves a picture of the image that random weights draw as well.
So neighbours are summed with their signs first.

What is missing of a case has no heat by either.
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

PLACES = 8  # a side, of a map by occlusion
COVERED = 2  # places a side that are covered at a time: overlaps tell where in them it matters
SILENT = 1e-5  # of the largest score: smaller falls are left out, for rounding makes some
STEPS = 16  # between the even image and the image, whose gradients are integrated
PIXELS = 2**20  # of the images in one pass, which bounds its memory
# Standard deviations of a blur, of a side: that which covers, and that which sums neighbours.
COVER, NEIGHBOURS = 1 / 8, 1 / 32


def occlusion(
    scores: Scores, images: Tensor, class_index: int | Sequence[int] | Tensor
) -> np.ndarray:
    """How far a class's score falls where the image is covered: float32 [B, S, M x S], 0 to 1.

    A square a quarter of the image wide is blurred, and moved by half its width: 49 places, and as
    many passes, for each image of a sample. What raises the score when covered is dropped, and the
    strongest place is 1. An image whose score falls nowhere is all 0.

    Args:
        scores: in eval mode, where it is a network.
        images: as a network takes them, M = 1, or cases of M images.
        class_index: a class for each sample, or one for all.
    """
    # it imports pyplot, half a second that only those should wait for who ask
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
    """What small places add to a class's score on the way from even grey: float32 [B, S, M x S].

    From 0 to 1, the strongest place of an image; what takes from the score is dropped. Arguments
    as in `occlusion`. The network needs no cut, and its parameters collect no gradient.
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
    """Images [B, M x 3, S, S] with each channel at its own mean all over."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def _one_by_one(
    images: Tensor, class_index: int | Sequence[int] | Tensor
) -> Iterator[tuple[Tensor, int]]:
    classes = torch.as_tensor(class_index).expand(len(images)).tolist()
    return zip(images.split(1), classes, strict=True)


def _at_a_time(image: Tensor) -> int:
    """How many images like this one [1, M x 3, S, S] go through a network together."""
    return max(1, 3 * PIXELS // image.numel())


def _of_images(attributed: Tensor) -> Tensor:
    """What was found for each channel [1, M x 3, S, S], summed over colours: [1, M, S, S]."""
    return attributed.float().unflatten(1, (-1, 3)).sum(dim=2)


def _blurred(maps: Tensor, share: float) -> Tensor:
    sigma = share * maps.shape[-1]
    return gaussian_blur(maps, 2 * math.ceil(2 * sigma) + 1, sigma)


def _scaled(heat: Tensor) -> np.ndarray:
    """Heat [1, M, S, S] from 0 to 1, the images side by side: float32 [S, M x S]."""
    shares = heat[0] / heat.amax().clamp_min(torch.finfo(heat.dtype).tiny)
    return shares.permute(1, 0, 2).flatten(1).cpu().numpy()
