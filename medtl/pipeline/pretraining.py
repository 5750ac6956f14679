"""Pretraining of backbones, and their reuse from the registry."""

from __future__ import annotations

import dataclasses
import sys
from typing import TypeVar

import mlflow
import numpy as np

from medtl.cache import content_key
from medtl.data.dataset import Dataset
from medtl.data.manifest import EMBEDDED, data_name
from medtl.data.sources.phantoms.datasets import FINDINGS, TARGET
from medtl.data.splits import nested_share
from medtl.errors import ParameterError
from medtl.pipeline.finalize import Concluded, evaluate_and_log
from medtl.pipeline.parameter_checks import check_training, outlined
from medtl.pipeline.run_logging import announce
from medtl.pipeline.setup import (
    PHANTOM_ARCHITECTURE,
    Origin,
    backbone_name,
    fit_model,
    prepare,
    training_data,
)
from medtl.settings.data import OF_DATA
from medtl.settings.training import ModelSettings, PretrainSettings
from medtl.tracking.lineage import find_backbone, mark_backbone
from medtl.tracking.registry import register
from medtl.tracking.runs import tracked_run
from medtl.tracking.store import check_may_change
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import TransferLearner

Chosen = TypeVar("Chosen", bound=ModelSettings)


def pretrained(settings: PretrainSettings) -> tuple[Concluded, str]:
    """Returns the trained backbone and its URI in the registry."""
    with CheckpointHold() as ends, tracked_run("pretrain", settings):
        check_training(settings)
        name = settings.backbone_name
        if name == "auto":
            name = backbone_name(data_name(settings.data), outlined(settings)[0])
        check_may_change(name)
        announce("pretrain", outlined(settings)[0], data_name(settings.data))
        transfer = _of_some(prepare(settings), settings.train_images)
        mlflow.set_tag("medtl.cutoff", settings.cutoff)
        concluded = evaluate_and_log(
            transfer, fit_model(settings, transfer, settings.cutoff, ends=ends)
        )
        version = register(concluded.model, concluded.facts, name)
        mark_backbone(name, version, _recipe_key(settings, transfer.dataset.identity))
    return concluded, f"models:/{name}/{version}"


def drawn_down(dataset: Dataset, images: int, seed: int) -> np.ndarray:
    """Draws rows of about `images` of the training split, by patient and the same share per class.

    Raises:
        ParameterError: the images have several labels.
    """
    if dataset.multi_label:
        raise ParameterError(
            "train_images",
            images,
            f"0, or give positive: the images of {dataset.name} have several labels",
        )
    train = dataset.splits["train"]
    share = min(1.0, images / len(train))
    return nested_share(dataset.labels[train], dataset.groups[train], share, seed)


def ensure_backbone(settings: Chosen) -> Chosen:
    """Replaces `weights=auto` on chest phantoms by a backbone pretrained on source phantoms.

    The backbone is pretrained on first use. Other settings are returned unchanged.
    """
    if settings.weights != "auto" or settings.data not in (TARGET, FINDINGS):
        return settings
    chosen = settings.architecture
    source = PretrainSettings(
        architecture=PHANTOM_ARCHITECTURE if chosen == "auto" else chosen,
        image_size=settings.image_size,
        precision=settings.precision,
        device=settings.device,
    )
    return dataclasses.replace(settings, weights=backbone_of(source))


def backbone_of(source: PretrainSettings) -> str:
    """Returns the URI of the backbone of these settings; trains it unless it is registered."""
    data, identity = source.data, ""
    if data not in EMBEDDED:
        dataset = training_data(source, Origin.of(source).rendering)
        data, identity = dataset.name, dataset.identity
    name = backbone_name(data, source.architecture)
    version = find_backbone(name, _recipe_key(source, identity))
    if version is not None:
        return f"models:/{name}/{version}"
    print(f"no backbone yet: {source.architecture} is pretrained on {data}, once")
    _, uri = pretrained(source)
    return uri


def _of_some(transfer: TransferLearner, images: int) -> TransferLearner:
    """Restricts the training split to about `images`; 0 for all."""
    dataset = transfer.dataset
    count = len(dataset.splits["train"])
    if not 0 < images < count:
        return transfer
    rows = drawn_down(dataset, images, transfer.settings.seed)
    note = (
        f"{len(rows):,} of {count:,} training images are used, drawn by patient with the same "
        f"share of each class (train_images={images})"
    )
    print(f"data {dataset.name}: {note}", file=sys.stderr)
    return dataclasses.replace(
        transfer,
        dataset=dataclasses.replace(dataset, notes=(*dataset.notes, note)),
        rows=rows,
        shared=transfer.activation_cache,
    )


def _recipe_key(settings: PretrainSettings, identity: str) -> str:
    """Hashes the recipe of a backbone; own data counts by content, not by path."""
    asked = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in OF_DATA
        # backbones of earlier releases keep their key
        and not (field.metadata["added_later"] and getattr(settings, field.name) == field.default)
    }
    if not settings.train_images:
        del asked["train_images"]
    return content_key(asked, settings.data if settings.data in EMBEDDED else identity)
