"""Evaluate a registered or logged model on any data and split."""

from __future__ import annotations

import mlflow

from medtl.data.dataset import Dataset, load
from medtl.errors import MedtlError
from medtl.jobs.conclude import score
from medtl.jobs.names import registered_name
from medtl.settings import EvaluateSettings
from medtl.tracking.bundle import Bundle
from medtl.tracking.journal import log_data
from medtl.tracking.models import load_bundle
from medtl.tracking.origin import training_settings
from medtl.tracking.runs import name_run, tracked_run


def evaluate(settings: EvaluateSettings) -> None:
    """Scores a model and logs metrics with intervals, pictures and tables."""
    with tracked_run("evaluate", settings):
        name = registered_name(settings.model_name, settings.data or "phantoms")
        uri = settings.model or f"models:/{name}@champion"
        bundle = load_bundle(uri)
        dataset = _data(settings, uri, bundle)
        mlflow.set_tags(
            {
                "medtl.architecture": bundle.architecture,
                "medtl.weights": bundle.weights,
                "medtl.cutoff": bundle.cutoff,
                "medtl.data": dataset.fingerprint,
                "medtl.model": uri,
            }
        )
        name_run(f"{dataset.name} {settings.split}")
        log_data(dataset)
        scored = score(bundle, dataset, settings.split, settings.seed)
    print(f"{uri} on {dataset.name}")
    print(scored.summary())


def _data(settings: EvaluateSettings, uri: str, bundle: Bundle) -> Dataset:
    """The data asked for, or the very data and split that the model was trained on."""
    size = bundle.preprocessing.image_size
    if settings.data:
        dataset = load(settings.data, size, settings.seed, settings.duplicates, settings.unreadable)
    else:
        made = training_settings(uri)
        data, seed = str(made["data"]), int(made["seed"])
        dataset = load(data, size, seed, str(made["duplicates"]), str(made["unreadable"]))
        if dataset.fingerprint != bundle.fingerprint:
            raise MedtlError(
                f"{data} is not what {uri} was trained on (fingerprint {dataset.fingerprint}, "
                f"then {bundle.fingerprint}): its images, labels or splits have changed; "
                f"give data={data} to evaluate on it as it is now"
            )
    if dataset.classes != bundle.classes:
        raise MedtlError(
            f"{uri} answers with {', '.join(bundle.classes)}, and {dataset.name} is labelled "
            f"{', '.join(dataset.classes)}: the classes must be the same"
        )
    return dataset
