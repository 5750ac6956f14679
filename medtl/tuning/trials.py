"""Trials of one worker: joins the study and runs each in its own run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import optuna
from optuna.trial import FrozenTrial

from medtl.data.dataset import Dataset
from medtl.pipeline.run_logging import log_epoch, log_halved
from medtl.pipeline.setup import training_data
from medtl.settings.training import TuneSettings
from medtl.tracking.runs import close_dead, link_successor, nested_run
from medtl.tracking.store import translate_store_errors
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool
from medtl.tuning.search_space import AnyCandidate, HybridCandidate
from medtl.tuning.storage import SingleWorker, connected, open_store
from medtl.tuning.study import Pruned, Schedule


@dataclass(frozen=True)
class Work:
    """What a worker is told: plain values, so that it may be sent anywhere."""

    name: str  # of the worker; no other has it
    settings: TuneSettings
    schedule: Schedule  # its timeout is what was left of the command's when the worker was begun
    storage: str  # URL
    study: str
    run_id: str  # the MLflow run under which its trials stand
    tracking_uri: str


@dataclass(frozen=True)
class TrialSpec:
    """A trial as who runs it knows it: plain values too."""

    study: str
    number: int
    candidate: AnyCandidate
    before: tuple[str, ...]  # runs in which the same was begun, and cut off


def work(task: Work) -> None:
    """Runs trials of a study that another process has prepared, until none is left.

    Raises:
        MedtlError: the storage does not open or is lost, as the tracking store may be, or the data
            or the weights cannot be used.
    """
    mlflow.set_tracking_uri(task.tracking_uri)
    backbone_pool = BackbonePool(task.settings, _read)
    store = open_store(task.storage, task.name)
    with connected(task.storage), translate_store_errors():
        study = studies.join_study(store, task.study, task.schedule)
        run_trials(study, backbone_pool, task.schedule, store.coordinator, task.run_id)


def run_trials(
    study: optuna.Study,
    backbone_pool: BackbonePool,
    schedule: Schedule,
    coordinator: SingleWorker,
    run_id: str,
    on_candidate: Callable[[AnyCandidate], None] = lambda candidate: None,
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> None:
    """Runs trials in this process, each in an MLflow run nested in `run_id`."""

    def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
        on_candidate(candidate)
        transfer = backbone_pool.transfer(backbone_pool.of(candidate))
        return run_trial(
            trial_spec(study, trial, candidate),
            transfer,
            run_id,
            on_run=lambda each: trial.set_user_attr(studies.RUN_ID, each),
            on_epoch=lambda epoch: studies.report(trial, epoch),
        )

    def on_dead(trial: FrozenTrial) -> None:
        close_dead(trial.user_attrs.get(studies.RUN_ID), run_id)

    studies.run_trials(
        study, backbone_pool.space, schedule, objective, on_trial, coordinator, on_dead
    )
    for place, note in backbone_pool.notes.items():
        print(f"activations at {place}: {note}", file=sys.stderr)


def fit_candidate(
    transfer: TransferLearner,
    candidate: AnyCandidate,
    on_epoch: Callable[[Epoch], None],
    ends: CheckpointHold | None = None,
) -> Trained:
    """The model of a candidate."""
    if isinstance(candidate, HybridCandidate):
        model = transfer.train_hybrid(candidate.cutoff)
        on_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(candidate.optimizer, candidate.lr)
    return transfer.train(candidate.cutoff, recipe, on_epoch, ends)


def trial_spec(study: optuna.Study, trial: optuna.Trial, candidate: AnyCandidate) -> TrialSpec:
    """What a trial of the study asks for."""
    before = [trial.user_attrs.get(studies.RUN_ID)]
    if studies.RESTARTS in trial.user_attrs:
        dead = study.get_trials(deepcopy=False)[trial.user_attrs[studies.RESTARTS]]
        before.append(dead.user_attrs.get(studies.RUN_ID))
    return TrialSpec(study.study_name, trial.number, candidate, tuple(filter(None, before)))


def run_trial(
    asked: TrialSpec,
    transfer: TransferLearner,
    parent: str,
    on_run: Callable[[str], None],
    on_epoch: Callable[[Epoch], None],
) -> float:
    """One trial in a run of its own; its state stands in the tag `medtl.state`.

    `on_run` hears of the run as it begins; `on_epoch` hears of each epoch, and raises `Pruned`
    where it shall be the last.
    """
    candidate = asked.candidate
    tags = {
        "medtl.kind": "trial",
        "medtl.study": asked.study,
        "medtl.trial": str(asked.number),
        "medtl.architecture": transfer.backbone.architecture,
        "medtl.weights": transfer.backbone.weights,
        "medtl.cutoff": candidate.cutoff,
        "medtl.data": transfer.dataset.fingerprint,
        "medtl.state": "failed",  # until it is known better
    }
    pruned: Pruned | None = None
    with nested_run(f"trial {asked.number}", tags, candidate.params(), parent) as run:
        for cut_off in asked.before:
            link_successor(cut_off, run.info.run_id)
        on_run(run.info.run_id)

        def on_each(epoch: Epoch) -> None:
            log_epoch(epoch)
            on_epoch(epoch)

        try:
            model = fit_candidate(transfer, candidate, on_each)
        except Pruned as reason:
            # raised again outside the run: MLflow would call a pruned trial FAILED
            pruned = reason
            mlflow.set_tags({"medtl.state": "pruned", "mlflow.note.content": str(reason)})
        else:
            best = model.fit.best
            log_halved(model.halved)
            mlflow.log_metrics({"best_valid_auroc": best.valid_auroc, "best_epoch": best.number})
            mlflow.set_tag("medtl.state", "complete")
    if pruned is not None:
        raise pruned
    return best.valid_auroc


def _read(settings: TuneSettings, image_size: int, _: str) -> Dataset:
    """The data alone: the process that this one works for has noted it."""
    return training_data(settings, image_size)
