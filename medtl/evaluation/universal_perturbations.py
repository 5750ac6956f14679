"""Universal perturbations: one pattern that changes a model's output when added to any image.

Minagi, Hirano & Takemoto 2022, "Natural images allow universal adversarial attacks on medical
image classification using deep neural networks with transfer learning", J. Imaging 8(2):38.

Images and perturbations use that paper's scale: -1 is black, 1 is white. Norms are over all
channels and pixels of one image; those of images are measured from black, as in the authors' code.
As in the paper, a class is the model's own prediction, not the label, and perturbed pixels are not
clipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Scores = Callable[[Tensor], Tensor]
"""Images [B, C, S, S] to logits [B, K], differentiable and independent for each image."""

Classes = TypeVar("Classes", Tensor, np.ndarray)

BATCH = 32  # images a step of the batched order


@dataclass(frozen=True)
class AttackRecipe:
    """Parameters of a perturbation.

    Attributes:
        norm: `l2` or `linf`.
        limit: largest norm of the perturbation (the paper's xi).
        step_size: norm of one step, as a share of the limit. A step changes every pixel by the same
            amount (the paper's epsilon).
        passes: maximum number of passes over the images.
        target: target class of all images; None for any class but the original prediction.
    """

    norm: str
    limit: float
    step_size: float
    passes: int
    target: int | None = None

    def epsilon(self, values: int) -> float:
        """Returns the change of each pixel per step, for images of `values` = C x S x S numbers."""
        length = self.step_size * self.limit
        return length / math.sqrt(values) if self.norm == "l2" else length


@dataclass(frozen=True)
class Examples:
    """M images before and after a perturbation.

    Attributes:
        images: [M, C, S, S] from -1 to 1.
        pattern: the perturbation [C, S, S].
        own: int [M], predictions before.
        after: int [M], predictions after.
        classes: K names.
    """

    images: np.ndarray
    pattern: np.ndarray
    own: np.ndarray
    after: np.ndarray
    classes: tuple[str, ...]


def sequential(
    scores: Scores, images: Tensor, recipe: AttackRecipe, generator: torch.Generator
) -> Tensor:
    """Makes the perturbation [C, S, S] by the paper's method, one image at a time.

    Each image that is not yet fooled is changed by one step (fast gradient sign). If this step
    fools it, the step is added to the perturbation, which is projected to the limit; otherwise the
    step is dropped.

    Args:
        scores: the model under attack, in eval mode.
        images: [N, C, S, S].
        recipe: norm, limit, steps and target.
        generator: draws the order of the images; equal seeds give equal perturbations.
    """
    own = predicted(scores, images)
    perturbation = torch.zeros_like(images[0])
    for _ in range(recipe.passes):
        before = perturbation
        for index in torch.randperm(len(images), generator=generator).split(1):
            shifted = images[index] + perturbation
            steps, missed = _steps(scores, shifted, own[index], recipe)
            if not missed.any():
                continue
            after = predicted(scores, shifted + steps)
            if fooled(own[index], after, recipe.target).all():
                perturbation = project(perturbation + steps[0], recipe.norm, recipe.limit)
        if perturbation is before:
            # no image would take another step
            break
    return perturbation


def batched(
    scores: Scores, images: Tensor, recipe: AttackRecipe, generator: torch.Generator
) -> Tensor:
    """Makes a perturbation with one common step per batch of 32 images (our variant).

    Each pixel takes the sign of the sum of the images' steps. As in the paper only steps that fool
    their image count, so that images far from a decision boundary do not dominate. If no step of a
    batch does, all count, so that the first step is possible. Arguments and result as in
    `sequential`.
    """
    own = predicted(scores, images)
    perturbation = torch.zeros_like(images[0])
    for _ in range(recipe.passes):
        before = perturbation
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            shifted = images[batch] + perturbation
            steps, missed = _steps(scores, shifted, own[batch], recipe)
            if not missed.any():
                continue
            after = predicted(scores, shifted + steps)
            fooling = missed & fooled(own[batch], after, recipe.target)
            direction = steps[fooling if fooling.any() else missed].sum(dim=0).sign()
            step = recipe.epsilon(direction.numel()) * direction
            perturbation = project(perturbation + step, recipe.norm, recipe.limit)
        if perturbation is before:
            # every image is fooled
            break
    return perturbation


ORDERS = {"batched": batched, "sequential": sequential}


def random_perturbation(
    like: Tensor, norm: str, length: float, generator: torch.Generator
) -> Tensor:
    """Draws a control with the shape and device of `like` and exactly the norm `length`.

    L2: uniform on the sphere; L-infinity: random signs, each corner of the cube as likely.
    """
    drawn = torch.randn(like.shape, generator=generator)
    return scaled(drawn if norm == "l2" else drawn.sign(), norm, length).to(like)


def project(perturbation: Tensor, norm: str, limit: float) -> Tensor:
    """Projects a perturbation to the nearest one with a norm of at most `limit`."""
    if norm == "linf":
        return perturbation.clamp(-limit, limit)
    return perturbation * (limit / perturbation.norm().clamp_min(limit))


def scaled(perturbation: Tensor, norm: str, length: float) -> Tensor:
    """Scales a pattern to the norm `length`; a pattern of zeros is unchanged."""
    present = norms(perturbation[None], norm)[0]
    return perturbation * (length / present) if present > 0 else perturbation


def resized(perturbation: Tensor, image_size: int, norm: str, length: float) -> Tensor:
    """Resizes a perturbation for images of another size, and scales it to the norm `length`."""
    side = (image_size, image_size)
    other = nn.functional.interpolate(perturbation[None], side, mode="bilinear", antialias=True)
    return scaled(other[0], norm, length)


def norms(images: Tensor, norm: str) -> Tensor:
    """Computes the norm [B] of each perturbation [B, C, S, S]: `l2` or `linf`."""
    return torch.linalg.vector_norm(images.flatten(1), 2 if norm == "l2" else torch.inf, dim=1)


def norms_from_black(images: Tensor, norm: str) -> Tensor:
    """Computes the norm [B] of each image [B, C, S, S] from -1 to 1, with black as 0."""
    return norms(images + 1, norm)


@torch.no_grad()
def predicted(scores: Scores, images: Tensor) -> Tensor:
    """Returns the most probable class of each image [N, C, S, S]: int [N], on their device."""
    return torch.cat([scores(batch).argmax(dim=1) for batch in images.split(BATCH)])


def fooled(own: Classes, after: Classes, target: int | None) -> Classes:
    """Returns whether each class `after` [B] is the target or, without one, not `own` [B]."""
    return after != own if target is None else after == target


def _steps(
    scores: Scores, shifted: Tensor, own: Tensor, recipe: AttackRecipe
) -> tuple[Tensor, Tensor]:
    """Returns a step [B, C, S, S] for each image, and which images are not yet fooled, bool [B].

    A step increases the cross-entropy of the image's own class, or decreases that of the target. It
    is 0 for fooled images.
    """
    with torch.inference_mode(False), torch.enable_grad():
        shifted = shifted.clone().requires_grad_(True)
        logits = scores(shifted)
        missed = ~fooled(own, logits.argmax(dim=1), recipe.target)
        if not missed.any():
            return torch.zeros_like(shifted), missed
        aim = own if recipe.target is None else torch.full_like(own, recipe.target)
        # Log-odds against the class: their gradient has the sign of the cross-entropy's, which
        # rounds to zero where the model is sure.
        others = logits.scatter(1, aim[:, None], -torch.inf).logsumexp(dim=1)
        odds = others - logits.gather(1, aim[:, None])[:, 0]
        (gradient,) = torch.autograd.grad(odds[missed].sum(), shifted)
    direction = 1 if recipe.target is None else -1
    return direction * recipe.epsilon(gradient[0].numel()) * gradient.sign(), missed
