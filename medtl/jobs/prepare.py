"""Start of every training: the backbone and the data set of the settings."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import mlflow

from medtl.data.dataset import Dataset, load
from medtl.data.phantoms import CASES
from medtl.data.table import EMBEDDED, read_table
from medtl.errors import MedtlError, ParameterError
from medtl.networks.architectures import build, check_architecture, image_network
from medtl.networks.backbone import Backbone
from medtl.networks.weights import load_state, load_weights, preprocessing
from medtl.settings import LearningSettings, ModelSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.journal import log_data
from medtl.tracking.models import load_bundle
from medtl.tracking.runs import name_run
from medtl.training.transfer import Transfer

PHANTOM_ARCHITECTURE = "small_resnet"  # small enough to be pretrained on two cores
PHANTOM_CASE_ARCHITECTURE = "late_fusion"
PHANTOM_SIZE = 96  # pixels; the size in which phantoms are drawn
USER_ARCHITECTURE = "resnet50"  # a feature extractor that Kim et al. 2022 advise
CASE_ARCHITECTURE = f"late_fusion:{USER_ARCHITECTURE}"  # the same for cases of several images
MLFLOW_SCHEMES = ("models:/", "runs:/")


@dataclass(frozen=True)
class Origin:
    """Origin of a backbone, known before any image is read."""

    architecture: str
    weights: str  # as `load_weights` takes them, or the URI of `source`
    image_size: int  # side of the square input, in pixels
    source: Bundle | None  # the model of this project that the weights come from, if they do

    @classmethod
    def of(cls, settings: ModelSettings) -> Origin:
        """What the settings ask for.

        Raises:
            ParameterError: there is no such architecture, or the weights are of another one.
            MedtlError: the weights are a model that cannot be loaded.
        """
        is_model = settings.weights.startswith(MLFLOW_SCHEMES)
        source = load_bundle(settings.weights) if is_model else None
        architecture = _architecture(settings, source)
        size = settings.image_size or _natural_size(settings, architecture, source)
        weights = settings.weights
        if weights == "auto":  # nothing is downloaded for embedded images
            weights = "random" if settings.data in EMBEDDED else "imagenet"
        return cls(architecture, weights, size, source)

    def backbone(self, dataset: Dataset, seed: int, hidden: int = 0) -> Backbone:
        """The backbone for the data; the seed draws the weights that are loaded from nowhere.

        Its head has a dense ReLU layer of `hidden` units, none of 0.
        """
        classes, images = len(dataset.classes), max(1, len(dataset.modalities))
        network = build(self.architecture, classes, self.image_size, seed, images, hidden)
        if self.source is not None:
            load_state(network, self.architecture, self.source.network.state_dict(), self.weights)
            expected = self.source.preprocessing
        else:
            expected = load_weights(network, self.architecture, self.weights)
        expected = dataclasses.replace(expected, image_size=self.image_size)
        return Backbone(self.architecture, self.weights, network, expected)

    def transfer(self, dataset: Dataset, settings: ModelSettings) -> Transfer:
        """Returns the backbone on the data."""
        seen_before = () if self.source is None else self.source.seen
        backbone = self.backbone(dataset, settings.seed, settings.hidden)
        return Transfer(backbone, dataset, settings, seen_before=seen_before)


def prepare(settings: ModelSettings) -> Transfer:
    """The backbone on the data, both noted in the active run.

    Raises:
        ParameterError: a parameter is wrong (architecture, weights, data, image size ...).
        MedtlError: the data or the weights cannot be used.
    """
    origin = Origin.of(settings)
    dataset = noted_data(settings, origin.image_size, origin.architecture)
    transfer = origin.transfer(dataset, settings)
    mlflow.set_tags(
        {
            "medtl.architecture": origin.architecture,
            "medtl.weights": transfer.backbone.weights,
            "medtl.data": dataset.fingerprint,
        }
    )
    return transfer


def noted_data(settings: LearningSettings, image_size: int, architecture: str) -> Dataset:
    """The data set of the settings, noted in the active run, which is named after both.

    Raises:
        MedtlError: as `training_data`.
    """
    dataset = training_data(settings, image_size)
    log_data(dataset)
    name_run(f"{dataset.name} {architecture}")
    return dataset


def training_data(settings: LearningSettings, image_size: int) -> Dataset:
    """The data set of the settings at a size, with images in all three splits.

    Raises:
        ParameterError: there is no such data.
        MedtlError: it cannot be trained on.
    """
    dataset = load(settings.data, image_size, settings.seed, settings.reading)
    if dataset.multi_label:
        _check_findings(settings, dataset)
    for split, indices in dataset.splits.items():
        if len(indices) == 0:
            raise MedtlError(
                f"{dataset.name} has no images in its {split} split; training needs train, valid "
                "and test (those that are missing are drawn from train)"
            )
    return dataset


def _check_findings(settings: LearningSettings, dataset: Dataset) -> None:
    """Refuses what needs one label an image."""
    remedy = f"or give positive: the images of {dataset.name} have several labels"
    if settings.transfer == "hybrid":
        raise ParameterError("transfer", settings.transfer, f"finetune, {remedy}")
    if settings.balance == "sampler":
        raise ParameterError("balance", settings.balance, f"none or loss, {remedy}")


def started_from(architecture: str, weights: str, theirs: str) -> str:
    """The architecture of a network that starts from a model, `weights`, of architecture `theirs`.

    `auto` is the model's own; an architecture of cases also starts from a model of the network
    that reads its images.

    Raises:
        ParameterError: there is no such architecture, or the weights are of another one.
    """
    if architecture == "auto":
        return theirs
    check_architecture(architecture)
    if theirs not in (architecture, image_network(architecture)):
        raise ParameterError("architecture", architecture, f"the weights {weights} are of {theirs}")
    return architecture


def _architecture(settings: ModelSettings, source: Bundle | None) -> str:
    if source is not None:
        return started_from(settings.architecture, settings.weights, source.architecture)
    if settings.architecture == "auto":
        if settings.data in EMBEDDED:
            return PHANTOM_CASE_ARCHITECTURE if settings.data == CASES else PHANTOM_ARCHITECTURE
        table = read_table(settings.data, settings.positive, settings.outside)
        return CASE_ARCHITECTURE if table.modalities else USER_ARCHITECTURE
    check_architecture(settings.architecture)
    return settings.architecture


def _natural_size(settings: ModelSettings, architecture: str, source: Bundle | None) -> int:
    if source is not None:
        return source.preprocessing.image_size
    if settings.data in EMBEDDED:
        return PHANTOM_SIZE
    return preprocessing(architecture).image_size
