"""Heat-map methods of a model, and of the model with randomised weights."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from medtl.errors import ParameterError
from medtl.evaluation.heatmap_checks import names_from, randomised
from medtl.inference.captum_maps import Scores, integrated_gradients, occlusion
from medtl.inference.grad_cam import explanation_cut, grad_cam
from medtl.inference.predictor import Predictor
from medtl.networks.cutoffs import resolve
from medtl.networks.partition import cut
from medtl.networks.registry import build
from medtl.settings.evaluation import GRAD_CAM, INTEGRATED_GRADIENTS, OCCLUSION

DRAWS = 3  # of random weights: one draw may happen to look where the network looks
# Images whose maps are made again: of a method with a gradient's few passes, and with many.
MOST_CHECKED, FEWER_CHECKED = 24, 12

Draw = Callable[[Tensor, Tensor], np.ndarray]
"""Maps [B, S, M x S] of images as a network takes them, each of its class (int [B])."""


@dataclass(frozen=True)
class Drawing:
    """One method for one model.

    Attributes:
        scores: those that the maps explain.
        trained: draws the model's maps.
        without: draws maps with what was learned lost: for each draw, and each stage of the loss,
            the names of the stage and how its maps are drawn. The last stage is the loss of all.
        lost: what becomes of it then, in words.
        most: how many maps the check should draw again.
    """

    scores: Scores
    trained: Draw
    without: Iterator[tuple[tuple[str, ...], Draw]]
    lost: str
    most: int


def methods_for(bundle: Predictor, asked: Sequence[str]) -> tuple[str, ...]:
    """The methods that are asked for; where none is, the one that is for this kind of model.

    Raises:
        ParameterError: a hybrid is asked for what needs a gradient.
    """
    if bundle.tail is None:
        return tuple(asked) or (GRAD_CAM,)
    for method in asked:
        if method != OCCLUSION:
            raise ParameterError("maps", method, f"give {OCCLUSION}, for a hybrid has no gradient")
    return (OCCLUSION,)


def drawing(bundle: Predictor, method: str, seed: int) -> Drawing:
    """How `method` draws the maps of a model, whose own network stays as it is.

    Raises:
        MedtlError: the network has no map that the method could take.
    """
    if bundle.tail is not None:
        return _of_hybrid(bundle, seed)
    if method == GRAD_CAM:
        size = bundle.image_size
        halves = explanation_cut(copy.deepcopy(bundle.network), size)
        trained = partial(grad_cam, halves)

        def of(network: nn.Module) -> Draw:
            return partial(grad_cam, cut(network, halves.point, size))
    else:
        asks = {OCCLUSION: occlusion, INTEGRATED_GRADIENTS: integrated_gradients}[method]
        of = partial(partial, asks)
        trained = of(bundle.network)
    most = MOST_CHECKED if method == GRAD_CAM else FEWER_CHECKED
    without = _randomised(bundle, of, seed)
    return Drawing(bundle.network, trained, without, "weights are randomised", most)


def _randomised(
    bundle: Predictor, of: Callable[[nn.Module], Draw], seed: int
) -> Iterator[tuple[tuple[str, ...], Draw]]:
    """`head` is the loss of the head alone, `trained` of all that was trained."""
    network, size = bundle.network, bundle.image_size
    head, trained = (
        resolve(network, bundle.architecture, name) for name in ("head", bundle.cutoff)
    )
    stages = [(("head",), head), (("trained",), trained)]
    if trained.key == head.key:
        stages = [(("head", "trained"), head)]
    stages = [(names, names_from(network, point, size)) for names, point in stages]
    images = max(1, len(bundle.modalities))
    for draw in range(seed, seed + DRAWS):
        fresh = build(bundle.architecture, len(bundle.classes), size, draw, images, bundle.hidden)
        for names, lost in stages:
            yield names, of(randomised(network, fresh, lost, draw))


def _of_hybrid(bundle: Predictor, seed: int) -> Drawing:
    """All that a hybrid has learned is its tail: it is lost where its features are exchanged."""
    # scikit-learn takes a second to import, and only a hybrid needs it
    from medtl.inference.sklearn_head import SklearnHead, shuffled

    known: dict[bytes, np.ndarray] = {}

    def scores(tail: SklearnHead, images: Tensor) -> Tensor:
        # The tails that learned nothing read what the trained one has read: no pass is made twice.
        key = hashlib.blake2b(images.cpu().contiguous().numpy()).digest()
        if key not in known:
            known[key] = bundle.read(images)
        return torch.from_numpy(tail.logits(known[key])).to(images.device)

    def without() -> Iterator[tuple[tuple[str, ...], Draw]]:
        for draw in range(seed, seed + DRAWS):
            tail = shuffled(bundle.tail, draw)
            yield ("classifier",), partial(occlusion, partial(scores, tail))

    of_trained = partial(scores, bundle.tail)
    return Drawing(
        of_trained,
        partial(occlusion, of_trained),
        without(),
        "features are exchanged",
        FEWER_CHECKED,
    )
