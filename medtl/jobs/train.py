"""Train one model: data, backbone, cut, training, test scores, logged model."""

from __future__ import annotations

import mlflow

from medtl.errors import ParameterError
from medtl.jobs.conclude import conclude, registered
from medtl.jobs.prepare import prepare
from medtl.networks.cutpoints import resolve
from medtl.settings import TrainSettings
from medtl.tracking.journal import log_epoch
from medtl.tracking.runs import tracked_run


def train(settings: TrainSettings) -> None:
    """Trains, evaluates and logs one model; registers it where `model_name` is given."""
    with tracked_run("train", settings):
        transfer = prepare(settings)
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, settings.cutoff)
        mlflow.set_tag("medtl.cutoff", point.name)
        recipe = transfer.recipe(settings.optimizer, settings.lr)
        fit_from = transfer.train_in_two_stages if settings.schedule == "two_stage" else transfer.train
        trained = fit_from(point.name, recipe, log_epoch)
        concluded = conclude(transfer, trained)
        print(concluded.summary())
        if settings.model_name != "auto":
            verdict = registered(concluded, settings.model_name, confidence=0.95)
            print(verdict.reason)
