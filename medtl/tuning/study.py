"""Optuna study: stored, resumed, pruned; its best trials and their table.

Each trial's sampler is seeded by the study's seed and the count of trials before it, not by how
many numbers this process drew: where the search was stopped leaves no trace in what it finds.
Where several workers search, trials end in an order that nobody sets, and results follow it.
"""

from __future__ import annotations

import contextlib
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from medtl.errors import MedtlError, ParameterError
from medtl.training.loop import Epoch, Stopped
from medtl.tuning.search_space import AnyCandidate, AnySpace
from medtl.tuning.storage import SingleWorker, Store, opening

FINISHED = "medtl.finished"  # study attribute: the MLflow run in which the search was concluded
ASKS = "medtl.asks"  # study attribute: key of data and settings; another key is another question
RUN_ID = "medtl.run_id"  # study and trial attribute: its MLflow run
PREPARED = "medtl.prepared"  # study attribute: the MLflow run that set the first trials
RESTARTS = "medtl.restarts"  # trial attribute: number of the trial that it is run again for
DEATHS = "medtl.deaths"  # trial attribute: workers that died over its parameters
ERROR = "medtl.error"  # trial attribute: why it failed
MOST_DEATHS = 3  # of workers over the same parameters, before those are given up
BEGUN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
TENTHS = 10  # parts of a trial's epochs, at whose ends it is compared with others
PRUNED_FROM = 3  # tenths, after the warm-up of the learning rate
POLL = 1.0  # seconds between two looks whether another worker's trial has ended

SINGLE_WORKER = SingleWorker()

optuna.logging.get_logger("optuna").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Schedule:
    """How long a study goes on, and how it prunes."""

    trials: int  # of the whole study
    timeout: float  # seconds for this call, 0 for none
    pruner: str  # median, hyperband, none
    seed: int


class Pruned(Stopped):
    """Raised inside a trial that falls behind the others."""


def open_study(
    store: Store,
    name: str,
    named_by_user: bool,
    asks: str,
    schedule: Schedule,
    was_cut_off: Callable[[str], bool] = lambda run_id: False,
) -> optuna.Study:
    """The study of this name, which goes on where it was stopped.

    `asks` is a key of all that makes two searches the same question. A study that the user named
    is joined whether finished or not. A name made from data, architecture and weights gets a
    number when the study of that name is finished, or asked something else; `was_cut_off` tells
    that the run in which it was finished did not come to its own end.

    Raises:
        MedtlError: the storage is lost.
        ParameterError: the study that the user named asks something else.
    """
    with opening(store.url):
        known = {summary.study_name for summary in optuna.get_all_study_summaries(store.storage)}
        base, number = name, 1
        while not named_by_user and name in known and not _open_for(store, name, asks, was_cut_off):
            number += 1
            name = f"{base}-{number}"
        study = optuna.create_study(
            storage=store.storage,
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(schedule),
        )
        if study.user_attrs.get(ASKS, asks) != asks:
            raise ParameterError(
                "study", name, "it was begun with other data or settings; give another name"
            )
        study.set_user_attr(ASKS, asks)
        return study


def join_study(store: Store, name: str, schedule: Schedule) -> optuna.Study:
    """The study of this name that another process has opened."""
    return optuna.load_study(storage=store.storage, study_name=name, pruner=_pruner(schedule))


def prepare(
    study: optuna.Study, starts: Sequence[tuple[dict[str, object], str]], run_id: str
) -> None:
    """Queues the first trials, each with why it is tried, unless that was done before."""
    if study.user_attrs.get(PREPARED) is None:
        # a process that was killed here may have queued some of them
        queued = [t for t in study.get_trials(deepcopy=False) if RESTARTS not in t.user_attrs]
        for params, why in starts[len(queued) :]:
            study.enqueue_trial(params, {"why": why})
        study.set_user_attr(PREPARED, run_id)


def restart_cut_off_trials(study: optuna.Study, store: Store, space: AnySpace) -> None:
    """Trials that a killed process left running wait again, in their own place in the queue.

    Where one process at a time works on a study, that is all that run. A trial keeps its number and
    its parameters. One that was killed while they were drawn is failed: the next draws the same.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        queued = "fixed_params" in trial.system_attrs
        if queued or trial.params.keys() == space.distributions().keys():
            store.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        else:
            study.tell(trial.number, state=TrialState.FAIL)


def queue_again(study: optuna.Study, dead: FrozenTrial, deaths: int = 0) -> bool:
    """Queues the parameters of a trial whose worker died; False where that happened too often.

    `deaths` is how many workers this trial has cost, 0 where somebody stopped them.
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

    `objective` gives the validation AUROC, raises `Pruned`, or fails; a failure of one trial
    (MedtlError, out of memory) is recorded and does not end the search. In company, trials of
    others count, and those whose worker died are queued again; `on_dead` hears of each.
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
            # one that now runs elsewhere may fail, and then another is needed
            time.sleep(POLL)
            continue
        with coordinator.working(trial), contextlib.suppress(UpdateFinishedTrialError):
            # suppressed is that this worker was taken for dead, and the trial is another's now
            try:
                value, state = objective(trial, space.candidate(trial.params)), None
            except Pruned:
                value, state = None, TrialState.PRUNED
            except UpdateFinishedTrialError:
                raise
            except (MedtlError, MemoryError, RuntimeError) as error:
                trial.set_user_attr(ERROR, _line(error))
                value, state = None, TrialState.FAIL
            on_trial(study.tell(trial, value, state, skip_if_finished=True))


def is_over(study: optuna.Study, schedule: Schedule, coordinator: SingleWorker) -> bool:
    """Whether no further trial is to be begun: enough have ended, or too many have failed."""
    if len(failed(study)) > 2 + schedule.trials // 2:
        return True
    return len(finished(study)) >= schedule.trials or coordinator.ended(study)


def check_completed(study: optuna.Study) -> None:
    """Raises `MedtlError` where no trial was completed; the message is that of the last."""
    if not completed(study):
        reasons = [trial.user_attrs.get(ERROR, "") for trial in failed(study)]
        reason = reasons[-1] if reasons else "none was begun"
        raise MedtlError(f"no trial of study {study.study_name} was completed: {reason}")


def wait_for_others(
    study: optuna.Study, coordinator: SingleWorker, on_dead: Callable[[FrozenTrial], None]
) -> None:
    """Waits until no trial runs any more; of a search that is over."""
    while True:
        with coordinator.asking(study):
            for dead in coordinator.dead(study):
                on_dead(dead)
            if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                return
        time.sleep(POLL)


def report(trial: optuna.Trial, epoch: Epoch) -> None:
    """Reports an epoch to the pruner, where one of the tenths of the trial's epochs ends.

    Trials of different cut-offs have different numbers of epochs: they are compared at equal
    shares of their learning-rate schedules. A solved head has its last tenth only, and so is never
    compared with trainings under way.

    Raises:
        Pruned: the trial falls behind the others.
    """
    before = epoch.progress * (epoch.number - 1) / epoch.number if epoch.number > 1 else 0.0
    tenth = _tenth(epoch.progress)
    if tenth == _tenth(before):
        return
    with warnings.catch_warnings():
        # a trial that goes on tells again of the epochs before it was cut off
        warnings.simplefilter("ignore", UserWarning)
        trial.report(epoch.valid_auroc, tenth)
    if trial.should_prune():
        raise Pruned(f"pruned after epoch {epoch.number}")


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that trained to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def begun(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count, and those that run."""
    return study.get_trials(deepcopy=False, states=BEGUN)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: completed or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def failed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that failed by an error of their own, not by a kill."""
    return [trial for trial in study.get_trials(deepcopy=False) if _has_failed(trial)]


def _has_failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and ERROR in trial.user_attrs


def _ask(study: optuna.Study, space: AnySpace, seed: int) -> optuna.Trial:
    # by one look: between two a trial of another worker may fail, and be counted twice
    trials = study.get_trials(deepcopy=False)
    number = sum(each.state in BEGUN or _has_failed(each) for each in trials)
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # signs of life are given here as Study.optimize would
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        study.sampler = optuna.samplers.TPESampler(
            seed=mixed, n_startup_trials=6, multivariate=True, constant_liar=True
        )
        return study.ask(space.distributions())


def _pruner(schedule: Schedule) -> optuna.pruners.BasePruner:
    if schedule.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=PRUNED_FROM)
    if schedule.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=PRUNED_FROM, max_resource=TENTHS)
    return optuna.pruners.NopPruner()


def _tenth(progress: float) -> int:
    # a product such as 10 x 0.3 may fall short of the whole number
    return int(TENTHS * progress + 1e-9)


def _open_for(store: Store, name: str, asks: str, was_cut_off: Callable[[str], bool]) -> bool:
    known = optuna.load_study(study_name=name, storage=store.storage).user_attrs
    concluded_in = known.get(FINISHED)
    return known.get(ASKS) == asks and (not concluded_in or was_cut_off(concluded_in))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__


STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def best_of_each(study: optuna.Study, space: AnySpace) -> dict[AnyCandidate, float]:
    """The best completed candidate of each architecture with its score, the best of all first."""
    ranked = sorted(completed(study), key=lambda trial: trial.value, reverse=True)
    best: dict[str, tuple[AnyCandidate, float]] = {}
    for trial in (study.best_trial, *ranked):
        candidate = space.candidate(trial.params)
        best.setdefault(candidate.architecture, (candidate, trial.value))
    return dict(best.values())


def table(study: optuna.Study, space: AnySpace) -> pd.DataFrame:
    """A row a finished trial, in order; none for one that was killed as its parameters were drawn.

    Columns: `number`, `state` (complete, pruned, failed), `score` (validation AUROC; of a pruned
    trial its last), the candidate's own, `cutoff` (categories in forward order), `epochs`,
    `seconds`, `error`.
    """
    rows, drawn = [], space.distributions().keys()
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.WAITING, TrialState.RUNNING) or trial.params.keys() != drawn:
            continue
        seen = trial.intermediate_values
        rows.append(
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "score": trial.value if trial.value is not None else seen.get(max(seen, default=0)),
                **space.candidate(trial.params).params(),
                "epochs": max(seen, default=0),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "error": trial.user_attrs.get(ERROR, ""),
            }
        )
    trials = pd.DataFrame(rows)
    trials["score"] = trials["score"].astype(float)
    trials["cutoff"] = pd.Categorical(trials["cutoff"], space.cutoffs, ordered=True)
    return trials


def importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """The share of each parameter in the variance of the score (fANOVA, Hutter et al. 2014).

    Empty when too few trials were completed to say, or when they all scored the same.
    """
    values = {trial.value for trial in completed(study)}
    if len(completed(study)) < 4 or len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {"cutoff" if name == "depth" else name: share for name, share in shares.items()}
