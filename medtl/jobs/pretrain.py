"""Pretrain a backbone on any labelled source, and register it for transfer."""

from __future__ import annotations

import dataclasses
import sys

import mlflow
import numpy as np

from medtl.data.dataset import Dataset
from medtl.data.phantoms import FINDINGS, TARGET
from medtl.data.shares import nested_share
from medtl.data.table import EMBEDDED, data_name
from medtl.errors import ParameterError
from medtl.jobs.checks import check_training, outlined
from medtl.jobs.conclude import Concluded, conclude
from medtl.jobs.names import backbone_name
from medtl.jobs.prepare import PHANTOM_ARCHITECTURE, Origin, prepare, training_data
from medtl.jobs.trained import trained
from medtl.keep import key_of
from medtl.settings import OF_DATA, ModelSettings, PretrainSettings
from medtl.tracking.backbones import find_backbone, mark_backbone
from medtl.tracking.permissions import check_may_change
from medtl.tracking.registry import register
from medtl.tracking.runs import tracked_run
from medtl.training.checkpoints import Ends
from medtl.training.transfer import Transfer


def pretrain(settings: PretrainSettings) -> None:
    """Pretrains and registers a backbone, and says how to use it."""
    concluded, uri = pretrained(settings)
    print(concluded.summary())
    print(f"registered    {uri}; use it with weights={uri}")


def pretrained(settings: PretrainSettings) -> tuple[Concluded, str]:
    """Returns the trained backbone and its URI in the registry."""
    with Ends() as ends, tracked_run("pretrain", settings):
        check_training(settings)
        name = settings.backbone_name
        if name == "auto":
            name = backbone_name(data_name(settings.data), outlined(settings)[0])
        check_may_change(name)
        transfer = _of_some(prepare(settings))
        mlflow.set_tag("medtl.cutoff", settings.cutoff)
        concluded = conclude(transfer, trained(settings, transfer, settings.cutoff, ends=ends))
        version = register(concluded.model, concluded.facts, name)
        mark_backbone(name, version, _recipe_key(settings, transfer.dataset.identity))
    return concluded, f"models:/{name}/{version}"


def drawn_down(dataset: Dataset, images: int, seed: int) -> np.ndarray:
    """Returns the rows of about `images` of the training split, by patient and class alike.

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


def with_phantom_backbone(settings: ModelSettings) -> ModelSettings:
    """The settings with `weights=auto` on chest phantoms made the URI of a backbone made here.

    It is pretrained on the embedded source phantoms. Other settings come back as they are.
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
    """The URI of the backbone that these settings make.

    It is trained when there is none of this kind yet, and found in the registry from then on.
    """
    data, identity = source.data, ""
    if data not in EMBEDDED:
        dataset = training_data(source, Origin.of(source).image_size)
        data, identity = dataset.name, dataset.identity
    name = backbone_name(data, source.architecture)
    version = find_backbone(name, _recipe_key(source, identity))
    if version is not None:
        return f"models:/{name}/{version}"
    print(f"no backbone yet: {source.architecture} is pretrained on {data}, once")
    _, uri = pretrained(source)
    return uri


def _of_some(transfer: Transfer) -> Transfer:
    """Returns the transfer with the images of the training split that shall be learned from."""
    settings, dataset = transfer.settings, transfer.dataset
    count = len(dataset.splits["train"])
    if not 0 < settings.train_images < count:
        return transfer
    rows = drawn_down(dataset, settings.train_images, settings.seed)
    note = (
        f"{len(rows):,} of {count:,} training images are learned from, drawn by patient and of "
        f"each class alike (train_images={settings.train_images})"
    )
    print(f"data {dataset.name}: {note}", file=sys.stderr)
    return dataclasses.replace(
        transfer,
        dataset=dataclasses.replace(dataset, notes=(*dataset.notes, note)),
        rows=rows,
        shared=transfer.keeper,
    )


def _recipe_key(settings: PretrainSettings, identity: str) -> str:
    """Hashes the recipe of a backbone; own data counts by content, not by path."""
    asked = {
        name: value for name, value in dataclasses.asdict(settings).items() if name not in OF_DATA
    }
    if not settings.train_images:
        del asked["train_images"]  # backbones of earlier releases stay known
    return key_of(asked, settings.data if settings.data in EMBEDDED else identity)
