"""Evaluate a registered or logged model on any data and split."""

from __future__ import annotations

import mlflow

from medtl.jobs.conclude import score
from medtl.jobs.subject import chosen_model, images_for
from medtl.settings import EvaluateSettings
from medtl.tracking.journal import log_data
from medtl.tracking.runs import name_run, tracked_run


def evaluate(settings: EvaluateSettings) -> None:
    """Scores a model and logs metrics with intervals, pictures and tables."""
    with tracked_run("evaluate", settings):
        uri, bundle = chosen_model(settings)
        dataset = images_for(settings, uri, bundle, bundle.image_size)
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
