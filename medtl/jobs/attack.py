"""Models under attack, and the attack that is made on each of them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.data.natural import natural_images
from medtl.errors import MedtlError
from medtl.evaluation.intervals import Interval
from medtl.evaluation.perturbation import (
    ORDERS,
    Recipe,
    fooled,
    norms,
    norms_from_black,
    predicted,
    random_perturbation,
    resized,
)
from medtl.evaluation.rates import rate
from medtl.jobs.conclude import in_batches
from medtl.settings import PerturbSettings
from medtl.tracking.bundle import Bundle
from medtl.training.inputs import network_input, unit_images

SOURCES = NATURAL, TRAINING, RANDOM = "natural", "training", "random"
"""Sources of a perturbation: natural images, training images, or none (random)."""

CONTROLS = 5  # random perturbations per bound
Made = tuple[str, float]
"""Source and bound (zeta) of a perturbation."""


@dataclass(frozen=True)
class Attacked:
    """A model under attack, its network on `device`, and the images in the size that it takes."""

    uri: str
    bundle: Bundle
    dataset: Dataset
    device: torch.device

    @classmethod
    def of(cls, uri: str, bundle: Bundle, dataset: Dataset, device: torch.device) -> Attacked:
        """Moves the network to the device.

        Raises:
            MedtlError: the model is a hybrid, or of cases of several images.
        """
        if bundle.modalities:
            raise MedtlError(
                f"{uri} takes cases of {', '.join(bundle.modalities)}; a universal perturbation is "
                "of one image: give a model of single images"
            )
        if bundle.tail is not None:
            raise MedtlError(
                f"{uri} is a hybrid: its classifier has no gradient to make a perturbation with; "
                "give a model of transfer=finetune"
            )
        bundle.network.to(device)
        return cls(uri, bundle, dataset, device)

    def scores(self, images: Tensor) -> Tensor:
        """Logits [B, K] of images [B, C, S, S] from -1 to 1, with their gradient."""
        return self.bundle.network(network_input((images + 1) / 2, self.bundle.preprocessing))

    def images(self, indices: np.ndarray) -> Tensor:
        """Images of the data set as the attack takes them: [N, C, S, S] from -1 to 1."""
        return self.signed(self.dataset.images(indices))

    def signed(self, raw: np.ndarray) -> Tensor:
        """Stored pixels [N, C, S, S] (uint8 or uint16) from -1 (black) to 1 (white)."""
        return unit_images(raw, self.device) * 2 - 1

    def predictions(self, indices: np.ndarray, perturbation: Tensor | None = None) -> np.ndarray:
        """The most probable class of each image of the data set, perturbed or not: int [N]."""

        def classes(raw: np.ndarray) -> np.ndarray:
            images = self.signed(raw)
            shifted = images if perturbation is None else images + perturbation
            return predicted(self.scores, shifted).cpu().numpy()

        return in_batches(classes, self.dataset, indices)


@dataclass(frozen=True)
class Attack:
    """Attack that is applied to each model.

    Attributes:
        settings: norm, order, passes, seed ...
        target: the class that all images shall get, or None.
        splits: the images on which rates are taken: `train`, from which perturbations are made
            too, and `test`.
    """

    settings: PerturbSettings
    target: int | None
    splits: dict[str, np.ndarray]

    def limit(self, model: Attacked, zeta: float) -> float:
        """Returns the largest norm at this bound: a share of the training images' mean norm."""
        images = model.images(self.splits["train"])
        return zeta * norms_from_black(images, self.settings.norm).mean().item()

    def recipe(self, model: Attacked, zeta: float) -> Recipe:
        """Returns the parameters of a perturbation at this bound."""
        asked = self.settings
        limit = self.limit(model, zeta)
        return Recipe(asked.norm, limit, asked.step_size, asked.passes, self.target)

    def images(self, model: Attacked, source: str) -> Tensor:
        """Loads the natural or training images that perturbations are made from: [N, C, S, S]."""
        if source != NATURAL:
            return model.images(self.splits["train"])
        side, channels = model.bundle.image_size, model.dataset.pixels.array.shape[1]
        asked = self.settings
        raw = natural_images(
            asked.images, asked.most_images, side, channels, asked.seed, asked.unreadable
        )
        return model.signed(raw)

    def perturbations(self, model: Attacked, zetas: Sequence[float]) -> dict[Made, Tensor]:
        """Makes perturbations [D, C, S, S] against the model; deterministic for a given seed.

        Returns one from natural and one from training images (D is 1), and five random ones as a
        control, with the larger norm of the two, by source and bound.
        """
        settings, made = self.settings, {}
        for source in (NATURAL, TRAINING):
            images = self.images(model, source)
            for zeta in zetas:
                recipe = self.recipe(model, zeta)
                # a new generator for each, so that it does not depend on the other sources
                generator = torch.Generator().manual_seed(settings.seed)
                pattern = ORDERS[settings.order](model.scores, images, recipe, generator)
                made[source, zeta] = pattern[None]
        for zeta in zetas:
            like = made[NATURAL, zeta][0]
            reached = max(self.reached(made[source, zeta]) for source in (NATURAL, TRAINING))
            generator = torch.Generator().manual_seed(settings.seed)
            made[RANDOM, zeta] = torch.stack(
                [
                    random_perturbation(like, settings.norm, reached, generator)
                    for _ in range(CONTROLS)
                ]
            )
        return made

    def reached(self, perturbations: Tensor) -> float:
        """Computes the mean norm of perturbations [D, C, S, S]."""
        return norms(perturbations, self.settings.norm).mean().item()

    def transferred(self, perturbations: Tensor, maker: Attacked, other: Attacked) -> Tensor:
        """Resizes perturbations [D, C, S, S] made against one model for another.

        Keeps the norm as a share of the images' mean norm.
        """
        side = other.bundle.image_size
        if side == maker.bundle.image_size:
            return perturbations
        norm = self.settings.norm
        scale = self.limit(other, 1.0) / self.limit(maker, 1.0)
        lengths = (norms(perturbations, norm) * scale).tolist()
        pairs = zip(perturbations, lengths, strict=True)
        return torch.stack([resized(pattern, side, norm, length) for pattern, length in pairs])

    def rate(
        self, model: Attacked, split: str, own: np.ndarray, perturbations: Tensor | None
    ) -> Interval:
        """Computes the fooling rate of perturbations [D, C, S, S] on a split, over all D.

        `own` int [N] are the predictions for the unperturbed images.
        """
        indices = self.splits[split]
        after = [own]
        if perturbations is not None:
            after = [model.predictions(indices, pattern) for pattern in perturbations]
        hits = np.concatenate([fooled(own, each, self.target) for each in after])
        groups = np.tile(model.dataset.groups[indices], len(after))
        return rate(hits, groups)


def attacked_splits(settings: PerturbSettings, dataset: Dataset) -> dict[str, np.ndarray]:
    """Returns indices of the training images (at most `most_images`, drawn) and all test images.

    Raises:
        MedtlError: one of the splits is empty.
    """
    train, test = dataset.splits["train"], dataset.splits["test"]
    for name, indices in (("train", train), ("test", test)):
        if len(indices) == 0:
            raise MedtlError(
                f"{dataset.name} has no images in its {name} split; perturbations are made from "
                "training images and tried on test images"
            )
    if len(train) > settings.most_images:
        random = np.random.default_rng(settings.seed)
        train = np.sort(random.choice(train, settings.most_images, replace=False))
    return {"train": train, "test": test}
