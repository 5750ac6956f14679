"""Heat-map methods of a model, and of the model with randomised weights."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medtl.errors import ParameterError
from medtl.evaluation.heatmap_checks import names_from, randomised
from medtl.inference.captum_maps import Scores, integrated_gradients, occlusion
from medtl.inference.explanation_cut import explained, explained_at
from medtl.inference.grad_cam import mean_grad_cam
from medtl.inference.predictor import Predictor
from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.ensemble import Ensemble, members_of
from medtl.networks.registry import build
from medtl.settings.evaluation import GRAD_CAM, OCCLUSION

if TYPE_CHECKING:
    from medtl.inference.sklearn_head import SklearnHead

DRAWS = 3  # of random weights: the maps of a single draw may resemble the network's by chance
# Images whose maps are drawn again: fewer for methods that need many forward passes.
MOST_CHECKED, FEWER_CHECKED = 24, 12

Draw = Callable[[Tensor, Tensor], np.ndarray]
"""Input of a network and a class per image (int [B]) to maps [B, S, M x S]."""


@dataclass(frozen=True)
class Drawing:
    """Heat-map method of one model, with its control.

    Attributes:
        scores: function whose values the maps explain.
        trained: draws the model's maps.
        without: for each random draw and each stage of randomisation the names of the stage, and a
            function that draws the maps of the randomised model. In the last stage all that was
            trained is randomised.
        lost: the randomisation in words.
        most: number of images whose maps are drawn again.
    """

    scores: Scores
    trained: Draw
    without: Iterator[tuple[tuple[str, ...], Draw]]
    lost: str
    most: int


def methods_for(bundle: Predictor, asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the methods `asked`, or the default of this kind of model if there is none.

    Raises:
        ParameterError: a method that needs a gradient, for a hybrid.
    """
    if bundle.tail is None:
        return tuple(asked) or (GRAD_CAM,)
    for method in asked:
        if method != OCCLUSION:
            raise ParameterError("maps", method, f"give {OCCLUSION}, for a hybrid has no gradient")
    return (OCCLUSION,)


def drawing(bundle: Predictor, method: str, seed: int) -> Drawing:
    """Prepares a method for a model, whose network is unchanged.

    Raises:
        MedtlError: the network has no feature map for the method.
    """
    if bundle.tail is not None:
        return _of_hybrid(bundle, bundle.tail, seed)
    if method == GRAD_CAM:
        size = bundle.image_size
        network = explained(copy.deepcopy(bundle.network), size)
        point = network.cuts[0].point
        trained: Draw = partial(mean_grad_cam, network)

        def of(network: nn.Module) -> Draw:
            return partial(mean_grad_cam, explained_at(network, point, size))
    else:
        draw = occlusion if method == OCCLUSION else integrated_gradients

        def of(network: nn.Module) -> Draw:
            return partial(draw, network)

        trained = of(bundle.network)
    most = MOST_CHECKED if method == GRAD_CAM else FEWER_CHECKED
    without = _randomised(bundle, of, seed)
    return Drawing(bundle.network, trained, without, "weights are randomised", most)


def _randomised(
    bundle: Predictor, of: Callable[[nn.Module], Draw], seed: int
) -> Iterator[tuple[tuple[str, ...], Draw]]:
    """Yields the stages of each draw: `head` randomises the head, `trained` all trained layers."""
    size = bundle.image_size
    members = members_of(bundle.network)
    network = members[0]
    head, trained = (
        resolve(network, bundle.architecture, name) for name in ("head", bundle.cutoff)
    )
    points: dict[tuple[str, ...], CutPoint] = {("head",): head, ("trained",): trained}
    if trained.key == head.key:
        points = {("head", "trained"): head}
    stages = [(names, names_from(network, point, size)) for names, point in points.items()]
    images = max(1, len(bundle.modalities))
    for draw in range(DRAWS):
        # each member has random weights of its own
        seeds = range(seed + draw, seed + draw + DRAWS * len(members), DRAWS)
        fresh = [
            build(bundle.architecture, len(bundle.classes), size, each, images, bundle.hidden)
            for each in seeds
        ]
        for names, lost in stages:
            changed = [
                randomised(member, other, lost, each)
                for member, other, each in zip(members, fresh, seeds, strict=True)
            ]
            yield names, of(_like(bundle.network, changed))


def _like(network: nn.Module, members: Sequence[nn.Module]) -> nn.Module:
    """Returns an ensemble of other members; the only member where `network` is not one."""
    if isinstance(network, Ensemble):
        return Ensemble(members, network.point, network.image_size).eval()
    return members[0]


def _of_hybrid(bundle: Predictor, trained: SklearnHead, seed: int) -> Drawing:
    """Returns occlusion maps of a hybrid; its control permutes the features of its classifier."""
    # imported here: scikit-learn takes a second, and only a hybrid needs it
    from medtl.inference.sklearn_head import shuffled

    features: dict[bytes, np.ndarray] = {}

    def scores(head: SklearnHead, images: Tensor) -> Tensor:
        # all heads read the same features: the network runs once for equal images
        key = hashlib.blake2b(images.cpu().numpy().tobytes()).digest()
        if key not in features:
            features[key] = bundle.read(images)
        return torch.from_numpy(head.logits(features[key])).to(images.device)

    def without() -> Iterator[tuple[tuple[str, ...], Draw]]:
        for draw in range(seed, seed + DRAWS):
            head = shuffled(trained, draw)
            yield ("classifier",), partial(occlusion, partial(scores, head))

    of_trained = partial(scores, trained)
    return Drawing(
        of_trained,
        partial(occlusion, of_trained),
        without(),
        "features are exchanged",
        FEWER_CHECKED,
    )
