"""The Optuna study: stored, resumed, and sampled so that a stopped search ends as an unbroken one.

Each trial's sampler is seeded by the study's seed and the count of trials before it, not by how
many numbers this process drew: where the search was stopped leaves no trace in what it finds.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from medtl.errors import MedtlError, ParameterError
from medtl.search.space import AnyCandidate, AnySpace
from medtl.training.loop import Epoch

FINISHED = "medtl.finished"  # study attribute: the MLflow run in which the search was concluded
ASKS = "medtl.asks"  # study attribute: key of data and settings; another key is another question
RUN_ID = "medtl.run_id"  # study and trial attribute: its MLflow run
ERROR = "medtl.error"  # trial attribute: why it failed
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

optuna.logging.get_logger("optuna").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Schedule:
    """How long a study goes on, and how it prunes."""

    trials: int  # of the whole study
    timeout: float  # seconds for this call, 0 for none
    pruner: str  # median, hyperband, none
    epochs: int  # most epochs of a trial
    seed: int


class Pruned(Exception):
    """Raised inside a trial that falls behind the others."""


def open_study(
    storage: str, name: str, named_by_user: bool, asks: str, schedule: Schedule
) -> optuna.Study:
    """The study of this name, which goes on where it was stopped.

    `asks` is a key of all that makes two searches the same question. A study that the user named
    is joined whether finished or not. A name made from data, architecture and weights gets a
    number when the study of that name is finished, or asked something else.

    Raises:
        MedtlError: the storage does not open.
        ParameterError: the study that the user named asks something else.
    """
    try:
        known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
        base, number = name, 1
        while not named_by_user and name in known and not _open_for(storage, name, asks):
            number += 1
            name = f"{base}-{number}"
        study = optuna.create_study(
            storage=storage,
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
    except MedtlError:
        raise
    except (ImportError, OSError, ValueError) as error:
        raise MedtlError(f"storage {storage} does not open: {_line(error)}") from error
    except Exception as error:  # SQLAlchemy's errors, without importing it for their names
        if not type(error).__module__.startswith("sqlalchemy"):
            raise
        raise MedtlError(f"storage {storage} does not open: {_line(error)}") from error


def restart_cut_off_trials(study: optuna.Study) -> None:
    """Trials that a killed process left running are failed, and their parameters queued again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"medtl.restarts": trial.number})


def run_trials(
    study: optuna.Study,
    space: AnySpace,
    schedule: Schedule,
    objective: Callable[[optuna.Trial, AnyCandidate], float],
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> None:
    """Runs trials until the study has `schedule.trials` finished ones or the time is up.

    `objective` gives the validation AUROC, raises `Pruned`, or fails; a failure of one trial
    (MedtlError, out of memory) is recorded and does not end the search.

    Raises:
        MedtlError: every trial failed; the message is the last trial's.
    """
    began = time.monotonic()
    while len(finished(study)) < schedule.trials:
        if schedule.timeout and time.monotonic() - began >= schedule.timeout and finished(study):
            break
        if len(failed(study)) > 2 + schedule.trials // 2:
            break
        trial = _ask(study, space, schedule.seed)
        candidate = space.candidate(trial.params)
        try:
            value = objective(trial, candidate)
        except Pruned:
            ended = study.tell(trial, state=TrialState.PRUNED)
        except (MedtlError, MemoryError, RuntimeError) as error:
            trial.set_user_attr(ERROR, _line(error))
            ended = study.tell(trial, state=TrialState.FAIL)
        else:
            ended = study.tell(trial, value)
        on_trial(ended)
    if not completed(study):
        reasons = [trial.user_attrs.get(ERROR, "") for trial in failed(study)]
        raise MedtlError(f"no trial of study {study.study_name} was completed: {reasons[-1]}")


def report(trial: optuna.Trial, epoch: Epoch) -> None:
    """Tells the pruner of an epoch.

    Raises:
        Pruned: the trial falls behind the others.
    """
    trial.report(epoch.valid_auroc, epoch.number)
    if trial.should_prune():
        raise Pruned(f"pruned after epoch {epoch.number}")


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that trained to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def best_of_each(study: optuna.Study, space: AnySpace) -> dict[AnyCandidate, float]:
    """The best completed candidate of each architecture with its score, the best of all first."""
    ranked = sorted(completed(study), key=lambda trial: trial.value, reverse=True)
    best: dict[str, tuple[AnyCandidate, float]] = {}
    for trial in (study.best_trial, *ranked):
        candidate = space.candidate(trial.params)
        best.setdefault(candidate.architecture, (candidate, trial.value))
    return dict(best.values())


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count: completed or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def failed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that failed by an error of their own, not by a kill."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in trials if ERROR in trial.user_attrs]


def table(study: optuna.Study, space: AnySpace) -> pd.DataFrame:
    """A row a finished trial, in order.

    Columns: `number`, `state` (complete, pruned, failed), `score` (validation AUROC; of a pruned
    trial its last), the candidate's own, `cutoff` (categories in forward order), `epochs`,
    `seconds`, `error`.
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.WAITING, TrialState.RUNNING) or not trial.params:
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


def _ask(study: optuna.Study, space: AnySpace, seed: int) -> optuna.Trial:
    number = len(finished(study)) + len(failed(study))
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(
            seed=mixed, n_startup_trials=6, multivariate=True, constant_liar=True
        )
    return study.ask(space.distributions())


def _pruner(schedule: Schedule) -> optuna.pruners.BasePruner:
    if schedule.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    if schedule.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=2, max_resource=schedule.epochs)
    return optuna.pruners.NopPruner()


def _open_for(storage: str, name: str, asks: str) -> bool:
    known = optuna.load_study(study_name=name, storage=storage).user_attrs
    return FINISHED not in known and known.get(ASKS) == asks


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
