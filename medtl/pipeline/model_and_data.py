"""Trained model and data set of a command."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from medtl.data.dataset import Dataset, in_order_of, with_findings
from medtl.data.loading import load
from medtl.data.manifest import EMBEDDED
from medtl.data.printable_names import on_disk
from medtl.data.sources.phantoms.datasets import TARGET
from medtl.errors import MedtlError, ParameterError
from medtl.imaging.rendering import Rendering
from medtl.inference.predictor import Predictor
from medtl.pipeline.setup import registered_name
from medtl.settings.data import OF_DATA, Reading
from medtl.settings.evaluation import EvaluateSettings, PerturbSettings
from medtl.settings.search import TuneSettings
from medtl.tracking.lineage import training_settings
from medtl.tracking.logged_model import load_bundle
from medtl.tracking.registry import CHAMPION, champion_version, newest_version

About = EvaluateSettings | PerturbSettings


def chosen_model(settings: About) -> tuple[str, Predictor]:
    """Loads the model of the settings, or the champion of `model_name`; returns its URI, too.

    Raises:
        MedtlError: there is no such model, or no champion (with the command that makes one).
    """
    if settings.model:
        return settings.model, load_bundle(settings.model)
    name = registered_name(settings.model_name, settings.data or TARGET)
    try:
        champion = champion_version(name)
    except ParameterError as error:
        raise MedtlError(
            f"there is no registered model {name} ({error.allowed}); a search makes it: "
            f"{_search_for(settings)}"
        ) from error
    if champion is None:
        raise MedtlError(
            f"no version of {name} is the champion; make one with promote: mlflow run . -e promote "
            f"--env-manager local -P {shlex.quote(f'model_name={name}')} -P "
            f"version={newest_version(name)}"
        )
    uri = f"models:/{name}@{CHAMPION}"
    return uri, load_bundle(uri)


def _search_for(settings: About) -> str:
    """Returns the `tune` command for the same data, with the same reading parameters."""
    asked = {name: getattr(settings, name) for name in OF_DATA}
    if not settings.data:
        # a model with a custom name may be of any data
        asked["data"] = TARGET if settings.model_name == "auto" else "YOUR_IMAGES"
    asked["model_name"] = settings.model_name
    usual = {field.name: field.default for field in dataclasses.fields(TuneSettings)}
    given = [
        f" -P {shlex.quote(f'{name}={value}')}"
        for name, value in sorted(asked.items())
        if name == "data" or value != usual[name]
    ]
    return f"mlflow run . -e tune --env-manager local{''.join(given)}"


def images_for(settings: About, uri: str, bundle: Predictor, rendering: Rendering) -> Dataset:
    """Loads the data of the settings, or the data and splits that the model was trained on.

    Findings are restricted to those of the model. Classes in an order have that of the model.

    Raises:
        MedtlError: the data has changed since training, or its modalities or kind of labels differ
            from the model's.
    """
    if settings.data:
        dataset = load(settings.data, rendering, settings.seed, settings.reading)
    else:
        made = training_settings(uri)
        data, seed = data_of_training(uri, made, "give data=PLACE"), int(str(made["seed"]))
        dataset = load(data, rendering, seed, Reading.of(made))
        if dataset.fingerprint != bundle.fingerprint:
            raise MedtlError(
                f"{data} is not what {uri} was trained on (fingerprint {dataset.fingerprint}, "
                f"then {bundle.fingerprint}): its images, labels or splits have changed; "
                f"give data={data} to evaluate on it as it is now"
            )
    if dataset.modalities != bundle.modalities:
        takes, has = (
            f"cases of {', '.join(each.modalities)}" if each.modalities else "single images"
            for each in (bundle, dataset)
        )
        raise MedtlError(
            f"{uri} takes {takes}, and {dataset.name} has {has}: they must be the same"
        )
    if dataset.multi_label != bundle.multi_label:
        says, has = (
            "any number of findings" if each.multi_label else "one label"
            for each in (bundle, dataset)
        )
        raise MedtlError(
            f"{uri} gives an image {says}, and {dataset.name} gives it {has}: they must be the "
            "same; positive=LABEL,LABEL or positive=any makes two classes of several labels"
        )
    if bundle.ordinal and set(dataset.classes) == set(bundle.classes):
        dataset = in_order_of(dataset, bundle.classes)
    return with_findings(dataset, bundle.classes) if bundle.multi_label else dataset


def data_of_training(uri: str, made: Mapping[str, object], remedy: str) -> str:
    """Returns the place of the data that a model was trained on, by its settings `made`.

    Raises:
        MedtlError: nothing is there; `remedy` says what to do.
    """
    data = str(made["data"])
    if data in EMBEDDED or on_disk(Path.cwd(), os.path.expanduser(data)).exists():
        return data
    seen = "" if os.path.isabs(os.path.expanduser(data)) else f" (seen from {Path.cwd()})"
    raise MedtlError(f"{data}, on which {uri} was trained, is not there{seen}; {remedy}")


def check_one_label(dataset: Dataset, what: str) -> None:
    """Checks that images have one label each, as `what` needs.

    Raises:
        MedtlError: labels are findings, any number an image.
    """
    if dataset.multi_label:
        raise MedtlError(
            f"{what} needs one label an image, and images of {dataset.name} have several: make two "
            "classes of them with positive=LABEL,LABEL or positive=any"
        )


def check_classes(uri: str, bundle: Predictor, dataset: Dataset) -> None:
    """Checks that the classes of a model are the labels of the data.

    Raises:
        MedtlError: they differ.
    """
    if dataset.classes != bundle.classes:
        raise MedtlError(
            f"{uri} has the classes {', '.join(bundle.classes)}, and {dataset.name} the labels "
            f"{', '.join(dataset.classes)}: they must be the same"
        )
