"""Pretrain a backbone on any labelled source, and register it for transfer."""

from __future__ import annotations

import dataclasses

import mlflow

from medtl.jobs.conclude import Concluded, conclude
from medtl.jobs.prepare import PHANTOM_ARCHITECTURE, prepare
from medtl.keep import key_of
from medtl.settings import ModelSettings, PretrainSettings
from medtl.tracking.backbones import find_backbone, mark_backbone
from medtl.tracking.journal import log_epoch
from medtl.tracking.registry import register
from medtl.tracking.runs import tracked_run


def pretrain(settings: PretrainSettings) -> None:
    """Pretrains and registers a backbone, and says how to use it."""
    concluded, uri = pretrained(settings)
    print(concluded.scored.summary())
    print(f"registered    {uri}; use it with weights={uri}")


def pretrained(settings: PretrainSettings) -> tuple[Concluded, str]:
    """The trained backbone and its URI in the registry."""
    with tracked_run("pretrain", settings):
        transfer = prepare(settings)
        recipe = transfer.recipe(settings.optimizer, settings.lr)
        mlflow.set_tag("medtl.cutoff", settings.cutoff)
        trained = transfer.train(settings.cutoff, recipe, log_epoch)
        concluded = conclude(transfer, trained)
        name = settings.backbone_name
        if name == "auto":
            name = f"medtl-{transfer.dataset.name}-{transfer.backbone.architecture}"
        version = register(concluded.model, concluded.facts, name)
        mark_backbone(name, version, _recipe_key(settings))
    return concluded, f"models:/{name}/{version}"


def with_phantom_backbone(settings: ModelSettings) -> ModelSettings:
    """The settings with `weights=auto` on phantoms made the URI of a backbone of this project.

    It is pretrained on the embedded source phantoms when there is none of this kind yet, and
    found in the registry from then on. Other settings come back as they are.
    """
    if settings.weights != "auto" or settings.data != "phantoms":
        return settings
    chosen = settings.architecture
    source = PretrainSettings(
        architecture=PHANTOM_ARCHITECTURE if chosen == "auto" else chosen,
        image_size=settings.image_size,
        precision=settings.precision,
        device=settings.device,
    )
    name = f"medtl-{source.data}-{source.architecture}"
    version = find_backbone(name, _recipe_key(source))
    if version is not None:
        uri = f"models:/{name}/{version}"
    else:
        print(f"no backbone yet: {source.architecture} is pretrained on {source.data}, once")
        _, uri = pretrained(source)
    return dataclasses.replace(settings, weights=uri)


def _recipe_key(settings: PretrainSettings) -> str:
    return key_of(dataclasses.asdict(settings))
