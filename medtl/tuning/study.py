"""Optuna study: opened, resumed, run and pruned.

The sampler of each trial is seeded by the study's seed and the number of trials before it, so that
a stopped and resumed search gives the result of an uninterrupted one. With several workers the
result also depends on the order in which trials end.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from medtl.errors import MedtlError, ParameterError
from medtl.training.loop import Epoch, Stopped
from medtl.tuning.fold_pruner import FoldPruner
from medtl.tuning.search_space import AnyCandidate, AnySpace, Param
from medtl.tuning.storage import SingleWorker, Store, opening

FINISHED = "medtl.finished"  # study attribute: the MLflow run that registered the result
ASKS = "medtl.asks"  # study attribute: key of data and settings; another key is another search
RUN_ID = "medtl.run_id"  # study and trial attribute: its MLflow run
PREPARED = "medtl.prepared"  # study attribute: the MLflow run that queued the first trials
SPREAD = "medtl.fold_std"  # trial attribute: standard deviation of its scores over folds
RESTARTS = "medtl.restarts"  # trial attribute: number of the trial that it repeats
DEATHS = "medtl.deaths"  # trial attribute: workers that died with these parameters
ERROR = "medtl.error"  # trial attribute: error message
MOST_DEATHS = 3  # of workers with the same parameters, which are then given up
BEGUN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
TENTHS = 10  # a trial is compared with others after each tenth of its epochs
PRUNED_FROM = 3  # tenths, after the warm-up of the learning rate
UNPRUNED = 4  # completed trials before the median pruner starts
POLL = 1.0  # seconds between two checks for the end of another worker's trial

SINGLE_WORKER = SingleWorker()

optuna.logging.get_logger("optuna").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Schedule:
    """Limits of a study, and its pruner."""

    trials: int  # of the whole study
    timeout: float  # seconds for this call, 0 for none
    pruner: str  # median, hyperband, none
    seed: int
    folds: int = 0  # of each trial; 0 for one training


class Pruned(Stopped):
    """Raised inside a trial that falls behind the others."""


def open_study(
    store: Store,
    name: str,
    named_by_user: bool,
    key: str,
    schedule: Schedule,
    was_cut_off: Callable[[str], bool] = lambda run_id: False,
) -> optuna.Study:
    """Opens or resumes the study of a name.

    A study that the user named is joined whether finished or not. A name made from data,
    architecture and weights gets a number if the study of that name is finished or has other
    settings.

    Args:
        store: storage of the study.
        name: of the study.
        named_by_user: whether the user chose the name.
        key: of data and settings; equal keys mean the same search.
        schedule: with the pruner.
        was_cut_off: returns whether the MLflow run that finished a study ended early, by its id.

    Raises:
        MedtlError: the storage is lost.
        ParameterError: the study that the user named has other data or settings.
    """
    with opening(store.url):
        known = {summary.study_name for summary in optuna.get_all_study_summaries(store.storage)}
        base, number = name, 1
        while not named_by_user and name in known and not _open_for(store, name, key, was_cut_off):
            number += 1
            name = f"{base}-{number}"
        study = optuna.create_study(
            storage=store.storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(schedule),
        )
        if study.user_attrs.get(ASKS, key) != key:
            raise ParameterError(
                "study", name, "it was begun with other data or settings; give another name"
            )
        study.set_user_attr(ASKS, key)
        return study


def join_study(store: Store, name: str, schedule: Schedule) -> optuna.Study:
    """Loads a study that another process has opened."""
    return optuna.load_study(storage=store.storage, study_name=name, pruner=_pruner(schedule))


def prepare(
    study: optuna.Study, starts: Sequence[tuple[Mapping[str, Param], str]], run_id: str
) -> None:
    """Queues the first trials, each with its reason, unless that was done before."""
    if study.user_attrs.get(PREPARED) is None:
        # a process that was killed here may have queued some of them
        queued = [t for t in study.get_trials(deepcopy=False) if RESTARTS not in t.user_attrs]
        for params, why in starts[len(queued) :]:
            study.enqueue_trial(dict(params), {"why": why})
        study.set_user_attr(PREPARED, run_id)


def restart_cut_off_trials(study: optuna.Study, store: Store, space: AnySpace) -> None:
    """Queues again the running trials of a killed process, with their numbers and parameters.

    For studies of one process at a time. A trial killed while its parameters were sampled is
    failed: the next one samples the same.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        queued = "fixed_params" in trial.system_attrs
        if queued or trial.params.keys() == space.distributions().keys():
            store.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def queue_again(study: optuna.Study, dead: FrozenTrial, deaths: int = 0) -> bool:
    """Queues the parameters of a trial whose worker died; False if that happened too often.

    `deaths` is the number of workers that died now: 0 if they were stopped.
    """
    params = {**dead.system_attrs.get("fixed_params", {}), **dead.params}
    deaths += dead.user_attrs.get(DEATHS, 0)
    if deaths >= MOST_DEATHS:
        return False
    if params:
        known = {name: dead.user_attrs[name] for name in ("why",) if name in dead.user_attrs}
        study.enqueue_trial(params, {**known, RESTARTS: dead.number, DEATHS: deaths})
    return True


def run_trials(
    study: optuna.Study,
    space: AnySpace,
    schedule: Schedule,
    objective: Callable[[optuna.Trial, AnyCandidate], float],
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
    coordinator: SingleWorker = SINGLE_WORKER,
    on_dead: Callable[[FrozenTrial], None] = lambda trial: None,
) -> None:
    """Runs trials until the study has `schedule.trials` finished ones or the time is up.

    `objective` returns the validation AUROC or raises `Pruned`. An error of a trial (MedtlError,
    out of memory) is recorded and does not end the search. With several workers, all trials count,
    and those whose worker died are queued again; `on_dead` is called for each.
    """
    began = time.monotonic()
    while True:
        with coordinator.asking(study):
            for dead in coordinator.dead(study):
                queue_again(study, dead)
                on_dead(dead)
            late = schedule.timeout and time.monotonic() - began >= schedule.timeout
            if late and finished(study):
                coordinator.end(study)
                return
            if is_over(study, schedule, coordinator):
                return
            trial = None
            if len(begun(study)) < schedule.trials:
                trial = _ask(study, space, schedule.seed)
                coordinator.begin(trial)
        if trial is None:
            # a trial that runs elsewhere may fail, and then another is needed
            time.sleep(POLL)
            continue
        with coordinator.working(trial), contextlib.suppress(UpdateFinishedTrialError):
            # suppressed if this worker was taken for dead, and its trial was queued again
            try:
                value, state = _defined(objective(trial, space.candidate(trial.params))), None
            except Pruned:
                value, state = None, TrialState.PRUNED
            except UpdateFinishedTrialError:
                raise
            except (MedtlError, MemoryError, RuntimeError) as error:
                trial.set_user_attr(ERROR, _line(error))
                value, state = None, TrialState.FAIL
            on_trial(study.tell(trial, value, state, skip_if_finished=True))


def is_over(study: optuna.Study, schedule: Schedule, coordinator: SingleWorker) -> bool:
    """Returns whether to start no further trial: enough have ended, or too many have failed."""
    if len(failed(study)) > 2 + schedule.trials // 2:
        return True
    return len(finished(study)) >= schedule.trials or coordinator.ended(study)


def check_completed(study: optuna.Study) -> None:
    """Raises `MedtlError` with the last trial's message if no trial was completed."""
    if not completed(study):
        reasons = [trial.user_attrs.get(ERROR, "") for trial in failed(study)]
        reason = reasons[-1] if reasons else "none was begun"
        raise MedtlError(f"no trial of study {study.study_name} was completed: {reason}")


def wait_for_others(
    study: optuna.Study, coordinator: SingleWorker, on_dead: Callable[[FrozenTrial], None]
) -> None:
    """Waits until no trial of a finished search is running."""
    while True:
        with coordinator.asking(study):
            for dead in coordinator.dead(study):
                on_dead(dead)
            if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
        time.sleep(POLL)


def report(trial: optuna.Trial, epoch: Epoch) -> None:
    """Reports an epoch to the pruner at the end of each tenth of the trial's epochs.

    Trials of different cut-offs have different numbers of epochs: they are compared at equal
    shares of their learning-rate schedules. A solved head reports its last tenth only, and is never
    compared with unfinished trainings.

    Raises:
        Pruned: the pruner ends the trial.
    """
    before = epoch.progress * (epoch.number - 1) / epoch.number if epoch.number > 1 else 0.0
    tenth = _tenth(epoch.progress)
    if tenth == _tenth(before):
        return
    with warnings.catch_warnings():
        # a resumed trial reports its earlier epochs again
        warnings.simplefilter("ignore", UserWarning)
        trial.report(epoch.valid_auroc, tenth)
    if trial.should_prune():
        raise Pruned(f"pruned after epoch {epoch.number}")


def report_fold(trial: optuna.Trial, number: int, mean: float, std: float) -> None:
    """Reports the mean over the folds so far to the pruner.

    Raises:
        Pruned: the trial falls behind the others on these folds.
    """
    trial.set_user_attr(SPREAD, std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        trial.report(mean, number)
    if trial.should_prune():
        raise Pruned(f"pruned after {number} {'fold' if number == 1 else 'folds'}")


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that trained to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_score(study: optuna.Study) -> float:
    """Returns the best validation AUROC of the completed trials, minus infinity without any."""
    return max((score_of(trial) for trial in completed(study)), default=-math.inf)


def score_of(trial: FrozenTrial) -> float:
    """Returns the validation AUROC of a completed trial."""
    assert trial.value is not None
    return trial.value


def begun(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that are finished or running."""
    return study.get_trials(deepcopy=False, states=BEGUN)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the finished trials: completed or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def failed(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that failed by an error of their own, not by a kill."""
    return [trial for trial in study.get_trials(deepcopy=False) if _has_failed(trial)]


def _has_failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and ERROR in trial.user_attrs


def _ask(study: optuna.Study, space: AnySpace, seed: int) -> optuna.Trial:
    # from one snapshot: between two, a trial of another worker could fail and count twice
    trials = study.get_trials(deepcopy=False)
    number = sum(each.state in BEGUN or _has_failed(each) for each in trials)
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # heartbeats are recorded here as Study.optimize would do
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        study.sampler = optuna.samplers.TPESampler(
            seed=mixed, n_startup_trials=6, multivariate=True, constant_liar=True
        )
        return study.ask(space.distributions())


def _pruner(schedule: Schedule) -> optuna.pruners.BasePruner:
    if schedule.folds and schedule.pruner != "none":
        return FoldPruner(UNPRUNED)
    if schedule.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=PRUNED_FROM)
    if schedule.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=PRUNED_FROM, max_resource=TENTHS)
    return optuna.pruners.NopPruner()


def _tenth(progress: float) -> int:
    # a product such as 10 x 0.3 may be slightly below the integer
    return int(TENTHS * progress + 1e-9)


def _open_for(store: Store, name: str, key: str, was_cut_off: Callable[[str], bool]) -> bool:
    known = optuna.load_study(study_name=name, storage=store.storage).user_attrs
    concluded_in = known.get(FINISHED)
    return known.get(ASKS) == key and (not concluded_in or was_cut_off(concluded_in))


def _defined(score: float) -> float:
    """Returns a score that is a number; Optuna would fail a trial of NaN without an error."""
    if math.isnan(score):
        raise MedtlError(
            "its AUROC is not defined: the cases that it is scored on are of one class"
        )
    return score


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
