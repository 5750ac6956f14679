"""Set-up of every training: backbone, data set, names, and the fit itself."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import mlflow

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.data.manifest import EMBEDDED, data_name, read_table
from medtl.data.sources.phantoms.datasets import CASES
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.rendering import Rendering
from medtl.inference.predictor import Predictor
from medtl.networks.architectures.timm_models import HUB, hub_model
from medtl.networks.ensemble import Ensemble
from medtl.networks.normalisation import AUTO, check_normalise, normalised_as
from medtl.networks.pretrained import (
    Backbone,
    check_weights,
    load_state,
    load_weights,
    preprocessing,
)
from medtl.networks.registry import build, check_architecture, image_network
from medtl.pipeline.conformal_split import check_patients, with_conformal_split
from medtl.pipeline.run_logging import log_data, log_epoch
from medtl.settings.training import LearningSettings, ModelSettings, TrainSettings
from medtl.tracking.logged_model import load_bundle
from medtl.tracking.runs import name_run
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch

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
    rendering: Rendering  # of the images of the user's data
    source: Predictor | None  # the model of this project that the weights come from, if they do
    normalise: str = AUTO  # overrides the normalisation of the weights

    @classmethod
    def of(cls, settings: ModelSettings) -> Origin:
        """Determines the origin from the settings.

        Raises:
            ParameterError: there is no such architecture, the weights are of another one or of an
                ensemble, or `auto` would be ImageNet weights that it does not have.
            MedtlError: the weights are a model that cannot be loaded.
        """
        check_normalise(settings.normalise)
        is_model = settings.weights.startswith(MLFLOW_SCHEMES)
        source = load_bundle(settings.weights) if is_model else None
        if source is not None and isinstance(source.network, Ensemble):
            raise ParameterError(
                "weights",
                settings.weights,
                f"a single model: this one is an ensemble of {source.members} networks",
            )
        architecture = _architecture(settings, source)
        rendering = _rendering(settings, architecture, source)
        weights = settings.weights
        if weights == "auto":
            weights = _automatic_weights(settings.data, architecture)
        return cls(architecture, weights, rendering, source, settings.normalise)

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return self.rendering.image_size

    def backbone(self, dataset: Dataset, seed: int, hidden: int = 0) -> Backbone:
        """Builds the backbone for the data; `seed` initialises weights that are not loaded.

        Its head has a dense ReLU layer of `hidden` units, none for 0.
        """
        classes, images = len(dataset.classes), max(1, len(dataset.modalities))
        network = build(self.architecture, classes, self.image_size, seed, images, hidden)
        if self.source is not None:
            load_state(network, self.architecture, self.source.network.state_dict(), self.weights)
            expected, note = normalised_as(self.source.preprocessing, self.normalise), ""
        else:
            loaded = load_weights(network, self.architecture, self.weights, self.normalise)
            expected, note = loaded.preprocessing, loaded.note
        expected = dataclasses.replace(expected, **dataclasses.asdict(self.rendering))
        return Backbone(self.architecture, self.weights, network, expected, note)

    def transfer(self, dataset: Dataset, settings: ModelSettings) -> TransferLearner:
        """Returns the backbone on the data."""
        seen_before = () if self.source is None else self.source.seen
        backbone = self.backbone(dataset, settings.seed, settings.hidden)
        return TransferLearner(backbone, dataset, settings, seen_before=seen_before)


def prepare(settings: ModelSettings) -> TransferLearner:
    """Prepares the backbone and the data, and logs both in the active run.

    Raises:
        ParameterError: a parameter is wrong (architecture, weights, data, image size ...).
        MedtlError: the data or the weights cannot be used.
    """
    origin = Origin.of(settings)
    dataset = noted_data(settings, origin.rendering, origin.architecture)
    transfer = origin.transfer(dataset, settings)
    mlflow.set_tags(
        {
            "medtl.architecture": origin.architecture,
            "medtl.weights": transfer.backbone.weights,
            "medtl.data": dataset.fingerprint,
        }
    )
    note_weights([transfer.backbone.note])
    return transfer


def note_weights(notes: Iterable[str]) -> None:
    """Prints which tensors of files of weights were loaded (`Backbone.note`); tags the run so."""
    said = [each for each in dict.fromkeys(notes) if each]
    for note in said:
        print(f"weights {note}", file=sys.stderr)
    if said:
        mlflow.set_tag("medtl.weights_loaded", " | ".join(said))


def noted_data(settings: LearningSettings, rendering: Rendering, architecture: str) -> Dataset:
    """Loads and logs the data set of the settings; names the active run after both.

    Raises:
        MedtlError: as `training_data`.
    """
    dataset = training_data(settings, rendering)
    dataset = log_data(dataset)
    name_run(f"{dataset.name} {architecture}")
    return dataset


def training_data(settings: LearningSettings, rendering: Rendering) -> Dataset:
    """Loads the data set of the settings in a rendering, with images in all three splits.

    With `holdout=0` there may be none in the test split. With `coverage` and without folds, a part
    of validation is set aside for prediction sets.

    Raises:
        ParameterError: there is no such data.
        MedtlError: it cannot be trained on.
    """
    dataset = load(settings.data, rendering, settings.seed, settings.reading)
    if dataset.multi_label:
        _check_findings(settings, dataset)
    for split, indices in dataset.splits.items():
        if len(indices) == 0 and (split != "test" or settings.holdout):
            raise MedtlError(
                f"{dataset.name} has no images in its {split} split; training needs train, valid "
                "and test (those that are missing are drawn from train)"
            )
    if not isinstance(settings, ModelSettings) or not settings.coverage:
        return dataset
    if settings.folds:
        check_patients(dataset, settings.coverage)
        return dataset
    return with_conformal_split(dataset, settings.coverage, settings.seed)


def _check_findings(settings: LearningSettings, dataset: Dataset) -> None:
    """Checks for settings that need one label an image."""
    remedy = f"or give positive: the images of {dataset.name} have several labels"
    if settings.transfer == "hybrid":
        raise ParameterError("transfer", settings.transfer, f"finetune, {remedy}")
    if settings.balance == "sampler":
        raise ParameterError("balance", settings.balance, f"none or loss, {remedy}")
    if isinstance(settings, ModelSettings) and settings.coverage:
        raise ParameterError("coverage", settings.coverage, f"0, {remedy}")


def started_from(architecture: str, weights: str, theirs: str) -> str:
    """Returns the architecture of a network initialised from a model of architecture `theirs`.

    `auto` is the model's own; an architecture of cases can also be initialised from a model of its
    image network. `weights` names the model in errors.

    Raises:
        ParameterError: there is no such architecture, or the weights are of another one.
    """
    if architecture == "auto":
        return theirs
    check_architecture(architecture)
    if theirs not in (architecture, image_network(architecture)):
        raise ParameterError("architecture", architecture, f"the weights {weights} are of {theirs}")
    return architecture


def _architecture(settings: ModelSettings, source: Predictor | None) -> str:
    if source is not None:
        return started_from(settings.architecture, settings.weights, source.architecture)
    if settings.weights.startswith(HUB):
        return _architecture_on_hub(settings.architecture, settings.weights)
    if settings.architecture == "auto":
        if settings.data in EMBEDDED:
            return PHANTOM_CASE_ARCHITECTURE if settings.data == CASES else PHANTOM_ARCHITECTURE
        table = read_table(settings.data, settings.reading)
        return CASE_ARCHITECTURE if table.modalities else USER_ARCHITECTURE
    check_architecture(settings.architecture)
    return settings.architecture


def _architecture_on_hub(architecture: str, weights: str) -> str:
    """Returns the architecture of a model on the hub: its name with its own arguments.

    Raises:
        ParameterError: another architecture is named.
    """
    theirs = hub_model(weights).architecture
    if architecture in ("auto", theirs, theirs.partition("?")[0]):
        return theirs
    check_architecture(architecture)
    raise ParameterError("architecture", architecture, f"the weights {weights} are of {theirs}")


def _automatic_weights(data: str, architecture: str) -> str:
    """Returns the weights that `weights=auto` stands for; nothing is downloaded for embedded data.

    Raises:
        ParameterError: there are no ImageNet weights for the architecture.
    """
    if data in EMBEDDED:
        return "random"
    try:
        check_weights(architecture, "imagenet")
    except ParameterError as error:
        meaning = f"auto is imagenet for your own data, and {error.allowed}"
        raise ParameterError("weights", "auto", meaning) from error
    return "imagenet"


def _rendering(settings: ModelSettings, architecture: str, source: Predictor | None) -> Rendering:
    """Returns the rendering of the weights, with what the settings ask for in its place."""
    if source is not None:
        expected, size = source.preprocessing, source.image_size
    else:
        if settings.weights.startswith(HUB):
            expected = hub_model(settings.weights).preprocessing()
        else:
            expected = preprocessing(architecture)
        size = PHANTOM_SIZE if settings.data in EMBEDDED else expected.image_size
    return dataclasses.replace(
        expected.rendering,
        image_size=settings.image_size or size,
        window=settings.window,
        fit=settings.fit,
    )


def registered_name(model_name: str, data: str) -> str:
    """Returns the name of the registered model; `auto` is medtl-DATA, DATA the data set's name."""
    if model_name != "auto":
        return model_name
    return f"medtl-{plain(data_name(data))}"


def backbone_name(data_name: str, architecture: str) -> str:
    """Returns the default name of a registered backbone: medtl-DATA-ARCHITECTURE."""
    return f"medtl-{plain(data_name)}-{plain(architecture)}"


def study_name(data_name: str, architecture: str, weights: str) -> str:
    """Returns the name of a new study: data, architecture and weights."""
    return "-".join(map(plain, (data_name, architecture, weights)))


def plain(text: str) -> str:
    """Replaces characters other than letters, digits, dots and underscores by dashes."""
    return re.sub(r"[^\w.]+", "-", text).strip("-")


def fit_model(
    settings: TrainSettings,
    transfer: TransferLearner,
    cutoff: str,
    on_epoch: Callable[[Epoch], None] = log_epoch,
    ends: CheckpointHold | None = None,
) -> Trained:
    """Trains the model of the settings; logs its epochs in the active run."""
    if settings.transfer == "hybrid":
        model = transfer.train_hybrid(cutoff)
        on_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(settings.optimizer, settings.lr)
    if settings.schedule == "two_stage":
        return transfer.train_in_two_stages(cutoff, recipe, on_epoch, ends)
    return transfer.train(cutoff, recipe, on_epoch, ends)
