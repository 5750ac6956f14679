"""What every training begins with: the backbone and the data set that the settings ask for."""

from __future__ import annotations

import dataclasses

import mlflow

from medtl.data.dataset import Dataset, load
from medtl.errors import MedtlError, ParameterError
from medtl.networks.architectures import build, check_architecture
from medtl.networks.backbone import Backbone
from medtl.networks.weights import load_state, load_weights, preprocessing
from medtl.settings import ModelSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.journal import log_data
from medtl.tracking.models import load_bundle
from medtl.tracking.runs import name_run
from medtl.training.transfer import Transfer

EMBEDDED = ("phantoms", "phantoms-source")
PHANTOM_ARCHITECTURE = "small_resnet"  # small enough to be pretrained on two cores
PHANTOM_SIZE = 96  # pixels; the size in which phantoms are drawn
USER_ARCHITECTURE = "resnet50"  # a feature extractor that Kim et al. 2022 advise
MLFLOW_SCHEMES = ("models:/", "runs:/")


def prepare(settings: ModelSettings) -> Transfer:
    """The backbone on the data, both noted in the active run.

    Raises:
        ParameterError: a parameter is wrong (architecture, weights, data, image size ...).
        MedtlError: the data or the weights cannot be used.
    """
    source = _source_bundle(settings.weights)
    architecture = _architecture(settings, source)
    size = settings.image_size or _natural_size(settings, architecture, source)
    dataset = load(settings.data, size, settings.seed, settings.duplicates, settings.unreadable)
    for split, indices in dataset.splits.items():
        if len(indices) == 0:
            raise MedtlError(
                f"{dataset.name} has no images in its {split} split; training needs train, valid "
                "and test (those that are missing are drawn from train)"
            )
    log_data(dataset)
    name_run(f"{dataset.name} {architecture}")
    backbone = _backbone(settings, architecture, source, dataset, size)
    mlflow.set_tags(
        {
            "medtl.architecture": architecture,
            "medtl.weights": backbone.weights,
            "medtl.data": dataset.fingerprint,
        }
    )
    return Transfer(backbone, dataset, settings)


def _source_bundle(weights: str) -> Bundle | None:
    """The model of this project that the weights come from, if they do."""
    return load_bundle(weights) if weights.startswith(MLFLOW_SCHEMES) else None


def _architecture(settings: ModelSettings, source: Bundle | None) -> str:
    if settings.architecture == "auto":
        if source is not None:
            return source.architecture
        return PHANTOM_ARCHITECTURE if settings.data in EMBEDDED else USER_ARCHITECTURE
    if source is not None and source.architecture != settings.architecture:
        raise ParameterError(
            "architecture",
            settings.architecture,
            f"the weights {settings.weights} are of {source.architecture}",
        )
    check_architecture(settings.architecture)
    return settings.architecture


def _natural_size(settings: ModelSettings, architecture: str, source: Bundle | None) -> int:
    if source is not None:
        return source.preprocessing.image_size
    if settings.data in EMBEDDED:
        return PHANTOM_SIZE
    return preprocessing(architecture).image_size


def _backbone(
    settings: ModelSettings,
    architecture: str,
    source: Bundle | None,
    dataset: Dataset,
    size: int,
) -> Backbone:
    network = build(architecture, len(dataset.classes), size, settings.seed)
    if source is not None:
        load_state(network, architecture, source.network.state_dict(), settings.weights)
        weights, expected = settings.weights, source.preprocessing
    else:
        weights = "imagenet" if settings.weights == "auto" else settings.weights
        expected = load_weights(network, architecture, weights)
    return Backbone(architecture, weights, network, dataclasses.replace(expected, image_size=size))
