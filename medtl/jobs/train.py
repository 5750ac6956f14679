"""Train one model: data, backbone, cut, training, test scores, logged model.

Of several processes that torchrun has started the first does all of this, and tells the others what
it has prepared; they train with it, take their shares of the passes, and say nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import mlflow

from medtl.data.seen import Seen
from medtl.errors import MedtlError, ParameterError
from medtl.jobs.checks import check_training
from medtl.jobs.conclude import conclude, help_conclude, registered
from medtl.jobs.prepare import prepare, training_data
from medtl.jobs.pretrain import with_phantom_backbone
from medtl.jobs.trained import trained
from medtl.networks.backbone import Backbone
from medtl.networks.cutpoints import resolve
from medtl.settings import TrainSettings
from medtl.tracking.reachable import check_registry
from medtl.tracking.runs import tracked_run
from medtl.training.checkpoints import Ends
from medtl.training.parallel import Alone
from medtl.training.torchrun import heard, joined
from medtl.training.transfer import Transfer

CONFIDENCE = 0.95  # that the gate asks of a model that train registers


@dataclass(frozen=True)
class _Prepared:
    """Data that the first process broadcasts to the others."""

    settings: TrainSettings
    backbone: Backbone
    seen_before: tuple[Seen, ...] | None
    fingerprint: str  # of the data
    cutoff: str


def train(settings: TrainSettings) -> None:
    """Trains, evaluates and logs one model; registers it where `model_name` is given."""
    with joined(settings.device) as team:
        if team.rank == 0:
            _lead(settings, team)
        else:
            _follow(team)


def _lead(settings: TrainSettings, team: Alone) -> None:
    with Ends() as ends, tracked_run("train", settings), heard(team):
        _check_together(settings, team)
        check_training(settings)
        if settings.model_name != "auto":
            check_registry(settings.model_name)
        settings = with_phantom_backbone(settings)
        transfer = prepare(settings)
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, settings.cutoff)
        mlflow.set_tag("medtl.cutoff", point.name)
        if team.size > 1:
            transfer = _shared(transfer, point.name, team)
        model = trained(settings, transfer, point.name, ends=ends)
        concluded = conclude(transfer, model)
        print(concluded.summary())
        print(f"model         {concluded.model.model_uri}")
        if settings.model_name != "auto":
            verdict = registered(concluded, settings.model_name, CONFIDENCE)
            print(
                f"registered    {settings.model_name} version {verdict.version}: {verdict.reason}"
            )


def _follow(team: Alone) -> None:
    told: _Prepared = team.told(None)
    settings = told.settings
    dataset = training_data(settings, told.backbone.preprocessing.image_size)
    if dataset.fingerprint != told.fingerprint:
        raise MedtlError(
            f"{settings.data} here is not what the first process has; the same images, labels and "
            "splits must be at that place on every machine"
        )
    transfer = Transfer(told.backbone, dataset, settings, seen_before=told.seen_before, team=team)
    model = trained(settings, transfer, told.cutoff, lambda epoch: None)
    help_conclude(transfer, model)


def _check_together(settings: TrainSettings, team: Alone) -> None:
    if team.size > 1 and settings.transfer == "hybrid":
        allowed = "finetune where torchrun starts several processes"
        raise ParameterError("transfer", settings.transfer, allowed)


def _shared(transfer: Transfer, cutoff: str, team: Alone) -> Transfer:
    """Returns the transfer of all processes, after broadcasting its data."""
    dataset = transfer.dataset
    for split, indices in dataset.splits.items():
        if len(indices) < team.size:
            raise MedtlError(
                f"{dataset.name} has {len(indices)} images in its {split} split, fewer than the "
                f"{team.size} processes that shall share them; start fewer"
            )
    mlflow.set_tag("medtl.processes", team.size)
    # all calculate alike, whatever each processor is best at
    settings = dataclasses.replace(transfer.settings, precision=transfer.precision)
    backbone, seen_before = transfer.backbone, transfer.seen_before
    team.told(_Prepared(settings, backbone, seen_before, dataset.fingerprint, cutoff))
    return dataclasses.replace(transfer, settings=settings, team=team)
