"""The explanation gallery of a split, and whether its maps depend on what the model has learned."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.explain import grad_cam
from medtl.evaluation.mapping import ClassMapping
from medtl.evaluation.randomised import mean_similarity, randomised, rank_correlations, verdict
from medtl.evaluation.shown import shown_classes, surest
from medtl.evaluation.truth import asked
from medtl.evaluation.viewpoint import explanation_cut
from medtl.networks.architectures import build
from medtl.networks.cut import Cut, cut
from medtl.networks.cutpoints import resolve
from medtl.tracking.bundle import Bundle
from medtl.tracking.galleries import Gallery, log_galleries
from medtl.training.inputs import network_input, unit_images

EACH_KIND = 3  # images of a kind that a gallery shows
MOST_CLASSES = 4  # that get a gallery
MOST_CHECKED = 24  # images whose maps are made again with randomised weights
DRAWS = 3  # of random weights: one draw may happen to look where the network looks
BATCH = 16


@dataclass(frozen=True)
class Said:
    """What a model says of N images of a data set.

    `indices` int64 [N]; `own` [N, J] are calibrated probabilities of the model's classes,
    `probabilities` [N, K] and `decisions` int64 [N] (of findings bool [N, K]) those of the data's
    labels.
    """

    indices: np.ndarray
    own: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray


def explain(
    bundle: Bundle, dataset: Dataset, split: str, said: Said, mapping: ClassMapping, seed: int
) -> str:
    """Logs galleries of a split and the check of their maps; what the check says, in words.

    Of a model that has no heat maps, the reason. The model's own network stays as it is.
    """
    if bundle.tail is not None:
        return "no heat maps: a hybrid has no gradient to draw them from"
    try:
        halves = explanation_cut(copy.deepcopy(bundle.network), bundle.image_size)
    except MedtlError as error:
        return f"no heat maps: {error}"
    shown = _shown(dataset, said, mapping)
    heats = _heats(bundle, halves, dataset, shown)
    evenly = np.linspace(0, len(shown) - 1, MOST_CHECKED).round().astype(int)
    checked = shown.iloc[np.unique(evenly)]
    before = heats[checked.index]
    similarities = {}
    for stage, after in _randomised_heats(bundle, halves, dataset, checked, seed):
        similarities.setdefault(stage, []).append(rank_correlations(before, after))
    patients = dataset.patients[checked["index"].to_numpy()]
    found = {}
    for stage, draws in similarities.items():
        each = np.mean(draws, axis=0)
        shown.loc[checked.index, f"similarity_{stage}"] = each
        found[stage] = mean_similarity(each, patients, seed)
    words = verdict(found["trained"])
    galleries = [
        Gallery(dataset.classes[label], rows, heats[rows.index])
        for label, rows in shown.groupby("shown_class")
    ]
    log_galleries(dataset, split, galleries, found, words)
    return words


def _shown(dataset: Dataset, said: Said, mapping: ClassMapping) -> pd.DataFrame:
    """A row an image of a gallery.

    `shown_class` (a label, int), `kind`, `index` (in the data), `model_class` (int) that its map
    is of, and the `probability` of the label. Of several classes of the model that mean a label,
    the map is of the likeliest.
    """
    labels, rows = dataset.labels[said.indices], []
    for label in shown_classes(labels, len(dataset.classes), MOST_CLASSES):
        cases, there = asked(labels, label)
        of_label = said.probabilities[:, label]
        called = asked(said.decisions, label)[1][cases]
        kinds = surest(there, called, of_label[cases], EACH_KIND)
        columns = np.array(mapping.columns[label])
        for kind, found in kinds.items():
            places = cases[found]
            likeliest = columns[said.own[np.ix_(places, columns)].argmax(axis=1)]
            rows += [
                (label, kind, said.indices[place], model_class, of_label[place])
                for place, model_class in zip(places, likeliest, strict=True)
            ]
    columns = ["shown_class", "kind", "index", "model_class", "probability"]
    return pd.DataFrame(rows, columns=columns)


def _heats(bundle: Bundle, halves: Cut, dataset: Dataset, shown: pd.DataFrame) -> np.ndarray:
    """The heat map of each row, float32 [M, S, S], of cases [M, S, images x S]."""
    device = next(bundle.network.parameters()).device
    parts = []
    for start in range(0, len(shown), BATCH):
        rows = shown.iloc[start : start + BATCH]
        images = unit_images(dataset.images(rows["index"].to_numpy()), device)
        classes = torch.from_numpy(rows["model_class"].to_numpy(copy=True))
        parts.append(grad_cam(halves, network_input(images, bundle.preprocessing), classes))
    return np.concatenate(parts)


def _randomised_heats(
    bundle: Bundle, halves: Cut, dataset: Dataset, shown: pd.DataFrame, seed: int
) -> Iterator[tuple[str, np.ndarray]]:
    """For each draw of random weights, and each stage of their loss: its name and the maps.

    `head` is the loss of the head alone, `trained` of all that was trained.
    """
    network, size = bundle.network, bundle.image_size
    head, trained = (
        resolve(network, bundle.architecture, name) for name in ("head", bundle.cutoff)
    )
    images = max(1, len(bundle.modalities))
    for draw in range(seed, seed + DRAWS):
        fresh = build(bundle.architecture, len(bundle.classes), size, draw, images)
        for stage, point in (("head", head), ("trained", trained)):
            if stage == "head" or point.key != head.key:
                changed = randomised(network, fresh, point, size, draw)
                heats = _heats(bundle, cut(changed, halves.point, size), dataset, shown)
            yield stage, heats
