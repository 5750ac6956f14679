"""Train one model: data, backbone, cut, training, test scores, logged model.

Of several processes started by torchrun, rank 0 does all of this. It broadcasts its data to the
others, which take part in training and forward passes and print nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import mlflow

from medtl.data.manifest import data_name
from medtl.errors import MedtlError, ParameterError
from medtl.inference.training_record import TrainingRecord
from medtl.networks.cutoffs import resolve
from medtl.networks.pretrained import Backbone
from medtl.pipeline.cross_validation import (
    cross_validate,
    evaluate_ensemble,
    log_cross_validation,
    with_folds,
)
from medtl.pipeline.finalize import (
    Concluded,
    evaluate_and_log,
    evaluate_shard,
    register_and_gate,
)
from medtl.pipeline.parameter_checks import check_training
from medtl.pipeline.pretraining import ensure_backbone
from medtl.pipeline.repeated_seeds import log_seeds, train_seeds
from medtl.pipeline.run_logging import announce
from medtl.pipeline.setup import fit_model, prepare, training_data
from medtl.settings.training import TrainSettings
from medtl.tracking.addresses import run_addresses, serve_command
from medtl.tracking.registry import CHAMPION, check_registry
from medtl.tracking.runs import tracked_run
from medtl.training.checkpoints import CheckpointHold
from medtl.training.distributed import SingleProcess, heard, joined
from medtl.training.learner import Trained, TransferLearner

CONFIDENCE = 0.95  # of the gate, for a model that train registers


@dataclass(frozen=True)
class _Prepared:
    """Data that the first process broadcasts to the others."""

    settings: TrainSettings
    backbone: Backbone
    seen_before: tuple[TrainingRecord, ...] | None
    fingerprint: str  # of the data
    cutoff: str


def train(settings: TrainSettings) -> None:
    """Trains, evaluates and logs one model; registers it where `model_name` is given."""
    with joined(settings.device) as team:
        if team.rank == 0:
            _lead(settings, team)
        else:
            _follow(team)


def _lead(settings: TrainSettings, team: SingleProcess) -> None:
    with CheckpointHold() as ends, tracked_run("train", settings) as run, heard(team):
        _check_together(settings, team)
        trained = f"trained from {settings.cutoff} on"
        announce("train", check_training(settings), data_name(settings.data), trained)
        if settings.model_name != "auto":
            check_registry(settings.model_name)
        settings = ensure_backbone(settings)
        transfer = prepare(settings)
        backbone = transfer.backbone
        point = resolve(backbone.network, backbone.architecture, settings.cutoff)
        mlflow.set_tag("medtl.cutoff", point.name)
        if team.size > 1:
            transfer = _shared(settings, transfer, point.name, team)
        if settings.folds:
            concluded = _cross_validated(settings, transfer, point.name, ends)
        elif settings.seeds:
            concluded = _repeated(settings, transfer, point.name, ends)
        else:
            model = fit_model(settings, transfer, point.name, ends=ends)
            concluded = evaluate_and_log(transfer, model)
            print(concluded.summary())
        print(f"model         {concluded.model.model_uri}")
        if settings.model_name != "auto":
            verdict = register_and_gate(concluded, settings.model_name, CONFIDENCE)
            print(
                f"registered    {settings.model_name} version {verdict.version}: {verdict.reason}"
            )
            served = f"models:/{settings.model_name}@{CHAMPION}"
        else:
            served = concluded.model.model_uri
    print("\n".join([f"serve it      {serve_command(served)}", *run_addresses(run.info.run_id)]))


def _cross_validated(
    settings: TrainSettings, transfer: TransferLearner, cutoff: str, ends: CheckpointHold
) -> Concluded:
    """Trains one model a fold, evaluates each on the cases that it has not seen, then all as one.

    Prints the scores.
    """
    transfer, folds = with_folds(transfer)
    found = cross_validate(
        transfer, folds, cutoff, lambda own: fit_model(settings, own, cutoff, ends=ends)
    )
    log_cross_validation(found)
    concluded = evaluate_ensemble(transfer, found)
    print(found.summary())
    print(concluded.summary() if found.has_test else concluded.remarks())
    return concluded


def _repeated(
    settings: TrainSettings, transfer: TransferLearner, cutoff: str, ends: CheckpointHold
) -> Concluded:
    """Trains one model a seed, and logs that of the first; prints the scores."""

    def fit(own: TrainSettings, learner: TransferLearner) -> Trained:
        return fit_model(own, learner, cutoff, ends=ends)

    found = train_seeds(transfer, settings, cutoff, fit)
    log_seeds(found)
    first = found.first
    concluded = evaluate_and_log(first.learner, first.trained, {"seeds": found.line()})
    print(concluded.summary())
    print(found.summary())
    return concluded


def _follow(team: SingleProcess) -> None:
    prepared: _Prepared | None = team.broadcast(None)
    assert prepared is not None
    settings = prepared.settings
    dataset = training_data(settings, prepared.backbone.preprocessing.rendering)
    if dataset.fingerprint != prepared.fingerprint:
        raise MedtlError(
            f"{settings.data} here is not what the first process has; the same images, labels and "
            "splits must be at that place on every machine"
        )
    transfer = TransferLearner(
        prepared.backbone, dataset, settings, seen_before=prepared.seen_before, team=team
    )
    model = fit_model(settings, transfer, prepared.cutoff, lambda epoch: None)
    evaluate_shard(transfer, model)


def _check_together(settings: TrainSettings, team: SingleProcess) -> None:
    if team.size > 1 and settings.transfer == "hybrid":
        allowed = "finetune where torchrun starts several processes"
        raise ParameterError("transfer", settings.transfer, allowed)
    for name in ("folds", "seeds"):
        if team.size > 1 and getattr(settings, name):
            allowed = "left out where torchrun starts several processes"
            raise ParameterError(name, getattr(settings, name), allowed)


def _shared(
    settings: TrainSettings, transfer: TransferLearner, cutoff: str, team: SingleProcess
) -> TransferLearner:
    """Returns the transfer of all processes, after broadcasting its data."""
    dataset = transfer.dataset
    for split, indices in dataset.splits.items():
        if len(indices) < team.size:
            raise MedtlError(
                f"{dataset.name} has {len(indices)} images in its {split} split, fewer than the "
                f"{team.size} processes that shall share them; start fewer"
            )
    mlflow.set_tag("medtl.processes", team.size)
    # one precision for all processes, whatever each processor prefers
    settings = dataclasses.replace(settings, precision=transfer.precision)
    backbone, seen_before = transfer.backbone, transfer.seen_before
    team.broadcast(_Prepared(settings, backbone, seen_before, dataset.fingerprint, cutoff))
    return dataclasses.replace(transfer, settings=settings, team=team)
