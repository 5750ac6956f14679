"""Parameter checks before any work, without images and weights."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from medtl.data.image_files import images_below
from medtl.data.manifest import data_name
from medtl.errors import ParameterError
from medtl.networks.cutoffs import resolve
from medtl.networks.normalisation import check_normalise
from medtl.networks.pretrained import check_weights, preprocessing
from medtl.networks.registry import outline
from medtl.pipeline.setup import MLFLOW_SCHEMES, Origin, started_from
from medtl.settings.evaluation import EvaluateSettings, PerturbSettings
from medtl.settings.execution import RAY
from medtl.settings.training import LearningSettings, ModelSettings, TrainSettings
from medtl.tracking.lineage import architecture_of
from medtl.training.device import resolve_device
from medtl.training.lora import last_attention


def check_training(settings: TrainSettings) -> str:
    """Checks the settings of a training as far as possible without images.

    Returns the architecture.

    Raises:
        ParameterError: an invalid parameter.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    architecture, network = outlined(settings)
    point = resolve(network, architecture, settings.cutoff)
    if settings.transfer == "lora" and point.position > (last := last_attention(network)):
        if last < 0:
            raise ParameterError("transfer", "lora", f"finetune: {architecture} has no attention")
        raise ParameterError(
            "cutoff", settings.cutoff, "a layer up to the last attention where transfer=lora"
        )
    return architecture


def check_places(settings: LearningSettings) -> None:
    """Checks the device and the data's place. On a cluster, nodes check their own devices.

    Raises:
        ParameterError: the device is unavailable, or the data is neither a folder nor a file.
    """
    if getattr(settings, "executor", "") != RAY:
        resolve_device(settings.device)
    data_name(settings.data)


def outlined(settings: ModelSettings) -> tuple[str, nn.Module]:
    """Returns the architecture to train, and its network on the meta device.

    Reads only the description of a registered model.

    Raises:
        ParameterError: unknown architecture or weights, or an unsupported image size.
        MedtlError: the weights are a model that does not exist.
    """
    if settings.weights.startswith(MLFLOW_SCHEMES):
        check_normalise(settings.normalise)
        theirs = architecture_of(settings.weights)
        architecture = started_from(settings.architecture, settings.weights, theirs)
        size = settings.image_size or preprocessing(architecture).image_size
    else:
        origin = Origin.of(settings)
        architecture, size = origin.architecture, origin.image_size
        check_weights(architecture, origin.weights)
    return architecture, outline(architecture, size)


def check_asked_of_model(settings: EvaluateSettings | PerturbSettings) -> None:
    """Checks the device and the data's place of `evaluate` and `perturb`.

    Raises:
        ParameterError: one does not exist.
    """
    resolve_device(settings.device)
    if settings.data:
        data_name(settings.data)


def check_image_folder(name: str, folder: str) -> None:
    """Checks that the parameter `name` is a folder with images.

    Raises:
        ParameterError: it is not a folder, or has no images.
    """
    place = Path(folder).expanduser()
    if not place.is_dir() or next(images_below(place), None) is None:
        raise ParameterError(name, folder, "a folder with images")


def check_output(file: str) -> Path:
    """Checks and returns the path of an output table.

    Raises:
        ParameterError: the folder does not exist, or the path is a folder.
    """
    place = Path(file).expanduser()
    if place.is_dir() or not place.parent.is_dir():
        raise ParameterError("output", file, "a CSV file in a folder that is there")
    return place
