"""Train one model: data, backbone, cut, training, test scores, logged model."""

from __future__ import annotations

import mlflow

from medtl.jobs.conclude import conclude, registered
from medtl.jobs.prepare import prepare
from medtl.jobs.pretrain import with_phantom_backbone
from medtl.networks.cutpoints import resolve
from medtl.settings import TrainSettings
from medtl.tracking.journal import log_epoch
from medtl.tracking.runs import tracked_run
from medtl.training.transfer import Trained, Transfer

CONFIDENCE = 0.95  # that the gate asks of a model that train registers


def train(settings: TrainSettings) -> None:
    """Trains, evaluates and logs one model; registers it where `model_name` is given."""
    with tracked_run("train", settings):
        settings = with_phantom_backbone(settings)
        transfer = prepare(settings)
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, settings.cutoff)
        mlflow.set_tag("medtl.cutoff", point.name)
        model = trained(settings, transfer, point.name)
        concluded = conclude(transfer, model)
        print(concluded.scored.summary())
        print(f"model         {concluded.model.model_uri}")
        if settings.model_name != "auto":
            verdict = registered(concluded, settings.model_name, CONFIDENCE)
            print(
                f"registered    {settings.model_name} version {verdict.version}: {verdict.reason}"
            )


def trained(settings: TrainSettings, transfer: Transfer, cutoff: str) -> Trained:
    """The model that the settings ask for; its epochs are logged in the active run."""
    if settings.transfer == "hybrid":
        model = transfer.train_hybrid(cutoff)
        log_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(settings.optimizer, settings.lr)
    if settings.schedule == "two_stage":
        return transfer.train_in_two_stages(cutoff, recipe, log_epoch)
    return transfer.train(cutoff, recipe, log_epoch)
