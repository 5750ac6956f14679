"""Search optimizer, learning rate and cut-off; refit, evaluate, register and gate the best."""

from __future__ import annotations

import dataclasses

import mlflow
import optuna
from tqdm import tqdm

from medtl.errors import ParameterError
from medtl.jobs.conclude import conclude, registered, serve_command
from medtl.jobs.prepare import prepare
from medtl.keep import key_of
from medtl.networks.cutpoints import cut_points, resolve
from medtl.search import study as studies
from medtl.search.space import Candidate, Space
from medtl.search.study import Pruned, Schedule
from medtl.settings import TuneSettings, comma_list
from medtl.tracking.journal import log_epoch, log_search
from medtl.tracking.runs import close_cut_off, embedded_storage, nested_run, tracked_run
from medtl.training.loop import Epoch
from medtl.training.transfer import Transfer

# Settings that say where and how long to search, not what is asked
NOT_ASKED = ("trials", "timeout", "study", "storage", "workers", "executor", "confidence",
             "model_name", "device", "keep")  # fmt: skip


def tune(settings: TuneSettings) -> None:
    """Runs the whole search in one parent run, with a nested run a trial.

    The validation split chooses; the test split is scored once, for the refitted best model.
    """
    with tracked_run("tune", settings) as run:
        transfer = prepare(settings)
        space = search_space(settings, transfer)
        schedule = Schedule(
            settings.trials, settings.timeout, settings.pruner, settings.epochs, settings.seed
        )
        study = opened(settings, transfer, space, schedule)
        search(study, space, schedule, transfer)
        best = space.candidate(study.best_trial.params)
        mlflow.log_metric("best_valid_auroc", study.best_value)
        mlflow.set_tag("medtl.cutoff", best.cutoff)
        log_search(studies.table(study), studies.importances(study, settings.seed), space.cutoffs)
        trained = transfer.train(best.cutoff, transfer.recipe(best.optimizer, best.lr), log_epoch)
        concluded = conclude(transfer, trained)
        name = model_name(settings, transfer)
        verdict = registered(concluded, name, settings.confidence)
        study.set_user_attr(studies.FINISHED, run.info.run_id)
    print(
        f"best trial    {study.best_trial.number} of {len(studies.finished(study))}: "
        f"{best.optimizer}, learning rate {best.lr:.2g}, trained from {best.cutoff} on, "
        f"validation AUROC {study.best_value:.3f}"
    )
    print(concluded.summary())
    print(f"registered    {name} version {verdict.version}: {verdict.reason}")
    print(f"serve it      {serve_command(name)}")
