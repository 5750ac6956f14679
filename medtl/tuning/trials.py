"""Trials of one worker, each in its own MLflow run."""

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
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import close_dead, nested_run, succeed_trials
from medtl.tracking.store import translate_store_errors
from medtl.training.checkpoints import BestCheckpoint, CheckpointHold
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool
from medtl.tuning.search_space import AnyCandidate, HybridCandidate
from medtl.tuning.source_comparison import log_valid_logits
from medtl.tuning.storage import SingleWorker, connected, open_store
from medtl.tuning.study import Pruned, Schedule


@dataclass(frozen=True)
class Work:
    """Task of a worker process, in plain values."""

    name: str  # unique name of the worker
    settings: TuneSettings
    schedule: Schedule  # its timeout is what was left of the command's when the worker started
    storage: str  # URL
    study: str
    run_id: str  # parent MLflow run of its trials
    tracking_uri: str


@dataclass(frozen=True)
class TrialSpec:
    """One trial to run, in plain values."""

    study: str
    number: int
    candidate: AnyCandidate
    repeats: tuple[int, ...]  # trials with these parameters whose worker died, and this number


def work(task: Work) -> None:
    """Runs trials of a study that another process has prepared, until none is left.

    Raises:
        MedtlError: the storage or the tracking store does not open or is lost, or the data or the
            weights cannot be used.
    """
    mlflow.set_tracking_uri(task.tracking_uri)
    backbone_pool = BackbonePool.open(task.settings, _read)
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
    """Runs trials in this process, each in an MLflow run nested in `run_id`.

    The final state of the best training stays in the cache: the refit of the search loads it.
    """
    best = BestCheckpoint()

    def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
        best.best = studies.best_score(study)
        transfer = backbone_pool.transfer(backbone_pool.of(candidate))

        def begun(run: str) -> None:
            trial.set_user_attr(studies.RUN_ID, run)
            on_candidate(candidate)

        return run_trial(
            trial_spec(study, trial, candidate),
            transfer,
            run_id,
            on_run=begun,
            on_epoch=lambda epoch: studies.report(trial, epoch),
            ends=best,
        )

    def on_dead(trial: FrozenTrial) -> None:
        close_dead(trial.user_attrs.get(studies.RUN_ID), run_id)

    studies.run_trials(
        study, backbone_pool.space, schedule, objective, on_trial, coordinator, on_dead
    )
    best.release(studies.best_score(study))
    for place, note in backbone_pool.notes.items():
        print(f"activations at {place}: {note}", file=sys.stderr)


def fit_candidate(
    transfer: TransferLearner,
    candidate: AnyCandidate,
    on_epoch: Callable[[Epoch], None],
    ends: CheckpointHold | None = None,
) -> Trained:
    """Trains the model of a candidate."""
    if isinstance(candidate, HybridCandidate):
        model = transfer.train_hybrid(candidate.cutoff)
        on_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(candidate.optimizer, candidate.lr)
    return transfer.train(candidate.cutoff, recipe, on_epoch, ends)


def trial_spec(study: optuna.Study, trial: optuna.Trial, candidate: AnyCandidate) -> TrialSpec:
    """Returns the plain values of a trial of the study."""
    dead = trial.user_attrs.get(studies.RESTARTS)
    repeats = (trial.number,) if dead is None else (trial.number, dead)
    return TrialSpec(study.study_name, trial.number, candidate, repeats)


def run_trial(
    spec: TrialSpec,
    transfer: TransferLearner,
    parent: str,
    on_run: Callable[[str], None],
    on_epoch: Callable[[Epoch], None],
    ends: CheckpointHold | None = None,
) -> float:
    """Runs a trial in its own MLflow run, with its state in the tag `medtl.state`.

    Args:
        spec: the trial.
        transfer: its network and data.
        parent: MLflow run under which it runs.
        on_run: called with the id of the run when it begins.
        on_epoch: called after each epoch; raises `Pruned` to end the trial.
        ends: holds the final checkpoint.
    """
    candidate = spec.candidate
    tags = {
        "medtl.kind": "trial",
        "medtl.study": spec.study,
        "medtl.trial": str(spec.number),
        "medtl.architecture": transfer.backbone.architecture,
        "medtl.weights": transfer.backbone.weights,
        "medtl.cutoff": candidate.cutoff,
        "medtl.data": transfer.dataset.fingerprint,
        "medtl.state": "failed",  # until it ends otherwise
    }
    if not isinstance(candidate, HybridCandidate):
        tags |= {"medtl.optimizer": candidate.optimizer, "medtl.lr": f"{candidate.lr:g}"}
    pruned: Pruned | None = None
    with nested_run(f"trial {spec.number}", tags, candidate.params(), parent) as run:
        on_run(run.info.run_id)
        succeed_trials(run, spec.study, spec.repeats)

        def on_each(epoch: Epoch) -> None:
            log_epoch(epoch)
            on_epoch(epoch)

        try:
            model = fit_candidate(transfer, candidate, on_each, ends)
        except Pruned as reason:
            # raised again outside the run: MLflow would call a pruned trial FAILED
            pruned = reason
            mlflow.set_tags({"medtl.state": "pruned", "mlflow.note.content": str(reason)})
        else:
            best = model.fit.best
            log_halved(model.halved)
            if candidate.network.weights:
                log_valid_logits(model.fit.valid_logits, transfer.dataset.classes)
            mlflow.log_metrics({"best_valid_auroc": best.valid_auroc, "best_epoch": best.number})
            mlflow.set_tag("medtl.state", "complete")
    if pruned is not None:
        raise pruned
    return best.valid_auroc


def _read(settings: TuneSettings, image_size: int, _: str) -> Dataset:
    """Reads the data without logging it, which the command has done."""
    return training_data(settings, image_size)
