"""Parameter checks before any work; they need no image and no weights, and take seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from torch import nn

from medtl.data.image_files import images_below
from medtl.data.table import EMBEDDED, data_name
from medtl.errors import ParameterError
from medtl.jobs.prepare import MLFLOW_SCHEMES, Origin, started_from
from medtl.networks.architectures import outline
from medtl.networks.cutpoints import resolve
from medtl.networks.weights import check_weights, preprocessing
from medtl.search.studies import PRETRAINED_ON, Plan
from medtl.settings import (
    CompareSettings,
    EvaluateSettings,
    LearningSettings,
    ModelSettings,
    PerturbSettings,
    TrainSettings,
)
from medtl.settings.cluster import RAY
from medtl.tracking.origin import architecture_of
from medtl.training.hardware import resolve_device


def check_training(settings: TrainSettings) -> str:
    """Refuses settings of a model that cannot be trained on any images; returns its architecture.

    Raises:
        ParameterError: an invalid parameter.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    architecture, network = outlined(settings)
    resolve(network, architecture, settings.cutoff)
    return architecture


def check_places(settings: LearningSettings) -> None:
    """Refuses an unavailable device, and data that is neither a folder nor a file.

    On a cluster, devices are checked by the nodes.

    Raises:
        ParameterError: naming which.
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
        theirs = architecture_of(settings.weights)
        architecture = started_from(settings.architecture, settings.weights, theirs)
        size = settings.image_size or preprocessing(architecture).image_size
    else:
        origin = Origin.of(settings)
        architecture, size = origin.architecture, origin.image_size
        check_weights(architecture, origin.weights)
    return architecture, outline(architecture, size)


def check_plan(settings: CompareSettings, plan: Plan) -> None:
    """Refuses a study if a parameter is invalid in every cell that uses it.

    A value that is valid for some of the networks is left to the cells, which fail one by one.

    Raises:
        ParameterError: naming the parameter.
        MedtlError: the weights are a model that does not exist.
    """
    check_places(settings)
    for name in ("different", "same"):
        _check_source(name, getattr(settings, name))
    starts: dict[str, list[str]] = {}
    for cell in plan.cells:
        starts.setdefault(cell.weights, []).append(cell.architecture)
    for start, names in starts.items():
        if start.startswith(MLFLOW_SCHEMES):
            architecture_of(start)
        elif start != "auto" and not start.startswith(PRETRAINED_ON):
            _taken_by_some(names, partial(check_weights, weights=start))
    networks: dict[str, nn.Module] = {}

    def draw(name: str) -> None:
        size = settings.image_size or plan.image_size or preprocessing(name).image_size
        networks[name] = outline(name, size)

    _taken_by_some([cell.architecture for cell in plan.cells], draw)
    for cutoff in settings.listed("cutoffs"):
        if cutoff == "blocks":
            continue
        try:
            _taken_by_some(networks, lambda name: resolve(networks[name], name, cutoff))  # noqa: B023
        except ParameterError as error:
            raise ParameterError("cutoffs", cutoff, error.allowed) from error


def check_asked_of_model(settings: EvaluateSettings | PerturbSettings) -> None:
    """Refuses data and devices of `evaluate` and `perturb` that do not exist.

    Raises:
        ParameterError: naming which.
    """
    resolve_device(settings.device)
    if settings.data:
        data_name(settings.data)


def check_image_folder(name: str, folder: str) -> None:
    """Refuses the parameter `name` if it is not a folder with images.

    Raises:
        ParameterError: not a folder, or without images.
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


def _check_source(name: str, source: str) -> None:
    """Checks a source of `alzubaidi2020`: an embedded set, the user's data, or weights."""
    if source in ("", "random", "imagenet", *EMBEDDED) or source.startswith(MLFLOW_SCHEMES):
        return
    if not Path(source).expanduser().exists():
        raise ParameterError(
            name, source, f"a folder, a file, a model's URI, or {' or '.join(EMBEDDED)}"
        )


def _taken_by_some(names: Iterable[str], check: Callable[[str], object]) -> None:
    """Raises the first error of `check` where it refuses every architecture."""
    names, errors = list(dict.fromkeys(names)), []
    for name in names:
        try:
            check(name)
        except ParameterError as error:
            errors.append(error)
    if len(errors) == len(names):
        raise errors[0]
