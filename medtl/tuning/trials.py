"""Trials of one worker, each in its own MLflow run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
import numpy as np
import optuna
from optuna.trial import FrozenTrial

from medtl.data.dataset import Dataset
from medtl.data.folds import Folds, draw_folds
from medtl.errors import MedtlError
from medtl.imaging.rendering import Rendering
from medtl.pipeline.cross_validation import fold_learner
from medtl.pipeline.run_logging import log_epoch, log_halved
from medtl.pipeline.setup import training_data
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import close_dead, nested_run, succeed_trials
from medtl.tracking.store import translate_store_errors
from medtl.training.checkpoints import BestCheckpoint, BestFolds, CheckpointHold
from medtl.training.learner import Trained, TransferLearner
from medtl.training.loop import Epoch
from medtl.training.losses import valid_scores
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
    best, best_folds = BestCheckpoint(), BestFolds()

    def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
        best.best = before = studies.best_score(study)
        transfer = backbone_pool.transfer(backbone_pool.of(candidate))
        spec = trial_spec(study, trial, candidate)

        def begun(run: str) -> None:
            trial.set_user_attr(studies.RUN_ID, run)
            on_candidate(candidate)

        if schedule.folds:
            hold = CheckpointHold()

            def on_fold(number: int, mean: float, std: float) -> None:
                studies.report_fold(trial, number, mean, std)

            folds = draw_folds(transfer.dataset, schedule.folds, schedule.seed)
            score = run_fold_trial(spec, transfer, folds, run_id, begun, on_fold, hold)
            best_folds.keep(hold, score, before)
            return score
        return run_trial(
            spec,
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
    best_folds.release(studies.best_score(study))
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
    if candidate.augment:
        recipe = dataclasses.replace(recipe, augment=candidate.augment)
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

    def on_each(epoch: Epoch) -> None:
        log_epoch(epoch)
        on_epoch(epoch)

    def trained() -> float:
        model = fit_candidate(transfer, candidate, on_each, ends)
        best = model.fit.best
        log_halved(model.halved)
        if candidate.network.weights:
            log_valid_logits(model.fit.valid_logits, transfer.dataset.classes)
        mlflow.log_metrics({"best_valid_auroc": best.valid_auroc, "best_epoch": best.number})
        return best.valid_auroc

    return tracked_trial(spec, transfer, parent, on_run, trained)


def tracked_trial(
    spec: TrialSpec,
    transfer: TransferLearner,
    parent: str,
    on_run: Callable[[str], None],
    trained: Callable[[], float],
) -> float:
    """Runs `trained` in the MLflow run of a trial, and returns its score.

    Other arguments as in `run_trial`; `Pruned` is raised again.
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
        try:
            score = trained()
        except Pruned as reason:
            # raised again outside the run: MLflow would call a pruned trial FAILED
            pruned = reason
            mlflow.set_tags({"medtl.state": "pruned", "mlflow.note.content": str(reason)})
        else:
            note = f"{candidate}: validation AUROC {score:.4f}"
            mlflow.set_tags({"medtl.state": "complete", "mlflow.note.content": note})
    if pruned is not None:
        raise pruned
    return score


def run_fold_trial(
    spec: TrialSpec,
    transfer: TransferLearner,
    folds: Folds,
    parent: str,
    on_run: Callable[[str], None],
    on_fold: Callable[[int, float, float], None],
    hold: CheckpointHold,
) -> float:
    """Runs a trial on all folds in one MLflow run; returns its mean AUROC over folds.

    Each model is scored on the cases that its fold tests. Those of the test split are in no fold.

    Args:
        spec: the trial.
        transfer: its network and data.
        folds: of the data.
        parent: MLflow run under which it runs.
        on_run: called with the id of the run when it begins.
        on_fold: called after each fold with its number from 1, and the mean and the standard
            deviation of the scores so far; raises `Pruned` to end the trial.
        hold: holds the final checkpoints of its trainings; dropped if the trial is pruned or fails.
    """

    def scored() -> float:
        scores: list[float] = []
        for number, name in enumerate(folds.names, start=1):
            own = fold_learner(transfer, folds, number - 1)
            trained = fit_candidate(own, spec.candidate, _ignored, hold)
            found = valid_scores(own.logits(trained, "test"), own.labels("test"))
            scores.append(found["valid_auroc"])
            best = trained.fit.best
            mlflow.log_metrics(
                {
                    "out_of_fold_auroc": scores[-1],
                    "valid_auroc": best.valid_auroc,
                    "best_epoch": best.number,
                },
                step=number,
            )
            mlflow.log_metric(f"fold_{name}_auroc", scores[-1])
            on_fold(number, float(np.nanmean(scores)), _spread(scores))
        mean = float(np.nanmean(scores))
        mlflow.log_metrics({"best_valid_auroc": mean, "valid_auroc_std": _spread(scores)})
        return mean

    try:
        return tracked_trial(spec, transfer, parent, on_run, scored)
    except (Pruned, MedtlError):
        hold.drop()
        raise


def _spread(scores: list[float]) -> float:
    """Returns the standard deviation of scores; 0 of a single one."""
    known = [score for score in scores if np.isfinite(score)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def _ignored(epoch: Epoch) -> None:
    """Ignores an epoch: those of several folds would have the same steps."""


def _read(settings: TuneSettings, rendering: Rendering, _: str) -> Dataset:
    """Reads the data without logging it, which the command has done."""
    return training_data(settings, rendering)
