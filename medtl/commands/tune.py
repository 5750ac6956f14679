"""Search architecture, cut-off, optimizer, learning rate; refit, evaluate, register the best."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mlflow
import optuna
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial
from tqdm import tqdm

from medtl.data.manifest import data_name
from medtl.distributed.executor import executor
from medtl.errors import MedtlError
from medtl.pipeline.cross_validation import (
    cross_validate,
    evaluate_ensemble,
    log_cross_validation,
    with_folds,
)
from medtl.pipeline.finalize import Concluded, evaluate_and_log, register_and_gate
from medtl.pipeline.run_logging import announce, log_epoch
from medtl.pipeline.setup import registered_name
from medtl.progress import PhaseTimer, bar_interval, in_words
from medtl.settings.execution import RAY
from medtl.settings.search import TuneSettings
from medtl.tracking.addresses import run_addresses, serve_command, view_address
from medtl.tracking.registry import CHAMPION, check_registry
from medtl.tracking.runs import (
    close_cut_off_run,
    close_dead,
    embedded_storage,
    has_answered,
    is_at_work,
    tracked_run,
    was_cut_off,
)
from medtl.tracking.saved_views import save_trials_view
from medtl.training.checkpoints import CheckpointHold
from medtl.training.learner import Trained, TransferLearner
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool, check_search
from medtl.tuning.cutoff_dictionary import Entry, known_entries, log_entries
from medtl.tuning.leaderboard import Leaderboard
from medtl.tuning.linear_probe import Probe, probe
from medtl.tuning.local_workers import run_crew
from medtl.tuning.search_logging import log_interactive_plots, log_probe, log_search
from medtl.tuning.search_result import search_result
from medtl.tuning.search_space import AnyCandidate, NetworkName, Space
from medtl.tuning.source_comparison import compare_sources
from medtl.tuning.storage import Store, connected, is_shared, open_store
from medtl.tuning.study import Schedule
from medtl.tuning.time_estimate import search_seconds, trial_seconds
from medtl.tuning.trial_costs import costs_of
from medtl.tuning.trials import fit_candidate, run_trials
from medtl.tuning.warm_start import Start, first_trials, in_turn, plain_recipes

EARLY = 2  # first trials from known data sets, and as many from the layer probe
EARLY_OF_EACH = 1  # the same for each of several networks
CHOSEN = (
    "the best trial was chosen by its out-of-fold scores, which are therefore optimistic; the test "
    "scores are not"
)
RESULT_TAG = "medtl.result"  # on the run of a command that joined a search: run with the result


@dataclass(frozen=True)
class _Search:
    """A search, its study and this command's run."""

    settings: TuneSettings
    backbone_pool: BackbonePool
    schedule: Schedule
    store: Store
    study: optuna.Study
    run_id: str  # this command's MLflow run
    ends: CheckpointHold  # of the final training
    timer: PhaseTimer

    def concluded_in(self) -> str | None:
        """Returns the run that registered the result of the search, None if none did yet."""
        return self.study.user_attrs.get(studies.FINISHED)


def tune(settings: TuneSettings) -> None:
    """Runs the whole search in one parent run, with a nested run a trial.

    The validation split chooses; the test split is scored once, for the refitted best model. Of
    several commands on one search, one leads: it prepares the search and registers the result. If
    it dies, another takes its place.
    """
    timer = PhaseTimer()
    with CheckpointHold() as ends, tracked_run("tune", settings) as run, executor(settings):
        architectures = ", ".join(check_search(settings))
        check_registry(registered_name(settings.model_name, settings.data))
        announce("tune", architectures, data_name(settings.data), f"{settings.trials} trials")
        store = open_store(settings.storage or embedded_storage())
        backbone_pool = BackbonePool.open(settings)
        backbone_pool.note()
        for line in backbone_pool.left_out:
            print(f"left out      {line}")
        schedule = schedule_of(settings, backbone_pool)
        name = settings.study or backbone_pool.study_name
        study = studies.open_study(
            store, name, bool(settings.study), backbone_pool.fingerprint, schedule, was_cut_off
        )
        mlflow.set_tag("medtl.study", study.study_name)
        timer.end("data and networks")
        search = _Search(
            settings, backbone_pool, schedule, store, study, run.info.run_id, ends, timer
        )
        with connected(store.url), store.coordinator.lead(study) as leads:
            lines = _searched(search, leads)
    shown = search.concluded_in() or run.info.run_id
    print("\n".join([*lines, *run_addresses(shown)]))


def _searched(search: _Search, leads: Callable[[], bool]) -> list[str]:
    """Searches, and registers the result if this command leads; returns the closing lines."""
    study = search.study
    done, probed = studies.finished(study), None
    if not _is_answered(search):
        if done:
            print(f"study {study.study_name}: going on after {len(done)} finished trials")
        if _takes_the_lead(study, leads):
            probed = _prepared(search)
        _run(search, leads)
    while not leads() and not search.concluded_in():
        time.sleep(studies.POLL)
    concluded_in = search.concluded_in()
    if concluded_in:
        mlflow.set_tag(RESULT_TAG, concluded_in)
        best = f"best trial {study.best_trial.number}, validation AUROC {study.best_value:.3f}"
        return [f"result        run {concluded_in} of study {study.study_name}: {best}"]
    if probed is None:
        _take_over(search)
        probed = _probed(search)
    return _concluded(search, probed)


def _is_answered(search: _Search) -> bool:
    """Returns whether an equal command has registered the result, and no trial is left.

    A late or repeated command returns the finished result and registers nothing.
    """
    concluded_in = search.concluded_in()
    if not concluded_in or len(studies.finished(search.study)) < search.schedule.trials:
        return False
    return is_shared(search.store.url) or has_answered(concluded_in, search.run_id)


def _takes_the_lead(study: optuna.Study, leads: Callable[[], bool]) -> bool:
    """Returns whether this command leads; waits until the leader has prepared the search."""
    while not leads():
        attributes = study.user_attrs
        if attributes.get(studies.PREPARED):
            leader = attributes[studies.RUN_ID]
            print(f"study {study.study_name}: joined; run {leader} leads the search")
            return False
        time.sleep(studies.POLL)
    return True


def _prepared(search: _Search) -> dict[NetworkName, Probe]:
    """Prepares a search: probes the layers, queues the first trials, estimates the time.

    Raises:
        MedtlError: the study allows one process at a time, and another one is working on it.
    """
    study, store = search.study, search.store
    before = study.user_attrs.get(studies.RUN_ID)
    if not is_shared(store.url):
        if before not in (None, search.run_id) and is_at_work(before, study.study_name):
            raise MedtlError(
                f"study {study.study_name} is being searched by another process (run {before}); "
                "wait for it, or give another study name; for several workers give "
                "storage=postgresql://USER@HOST/DATABASE"
            )
        studies.restart_cut_off_trials(study, store, search.backbone_pool.space)
    _take_over(search)
    store.coordinator.reopen(study)
    study.set_user_attr(studies.FINISHED, None)
    probed = _probed(search)
    starts = (
        []
        if study.user_attrs.get(studies.PREPARED)
        else starts_of(search.settings, search.backbone_pool, probed, known_entries())
    )
    for start in starts:
        print(f"tried early   {_place(start.candidate)}: {start.why}")
    params = [(search.backbone_pool.space.params(start.candidate), start.why) for start in starts]
    studies.prepare(study, params, search.run_id)
    if line := _time_line(search, probed, starts):
        print(line)
    search.timer.end("layer probe")
    for line in _watch_lines(search):
        print(line)
    return probed


def _watch_lines(search: _Search) -> list[str]:
    """Returns where to watch the trials: the leaderboard, and MLflow's list of them."""
    experiment = MlflowClient().get_run(search.run_id).info.experiment_id
    several = search.backbone_pool.several
    view = save_trials_view(experiment, search.study.study_name, several)
    return [
        f"leaderboard   {_leaderboard(search).address}",
        f"trials        {view_address(experiment, view)}",
    ]


def _time_line(
    search: _Search, probed: Mapping[NetworkName, Probe], starts: Sequence[Start]
) -> str:
    """Returns a line with the estimated time of the trials and how to bound it, '' if none is left.

    Workers on this machine share its processors; those of a cluster count as such machines.
    """
    pool, schedule = search.backbone_pool, search.schedule
    done = len(studies.finished(search.study))
    if done >= schedule.trials:
        return ""
    by_network = {
        each.name: trial_seconds(
            pool.transfer(each),
            each.space,
            costs_of(pool.transfer(each), each.space, probed[each.name].seconds_per_image),
        )
        for each in pool.all
    }
    first = [by_network[pool.of(start.candidate).name][start.candidate.cutoff] for start in starts]
    seconds = max(1, schedule.folds) * search_seconds(schedule, done, first, by_network.values())
    if search.settings.executor == RAY:
        seconds /= search.settings.workers
    each = [value for own in by_network.values() for value in own.values()]
    return (
        f"search        {schedule.trials - done} trials, about {in_words(seconds)} on this machine "
        f"({in_words(min(each))} to {in_words(max(each))} a trial); trials=N or timeout=SECONDS "
        "bounds it"
    )


def _take_over(search: _Search) -> None:
    """Closes the run of the earlier leader, and makes this command's run the study's run."""
    close_cut_off_run(search.study.user_attrs.get(studies.RUN_ID), successor=search.run_id)
    search.study.set_user_attr(studies.RUN_ID, search.run_id)


def _run(search: _Search, leads: Callable[[], bool]) -> None:
    """Runs trials, here or in workers, under a progress bar, until none is left.

    The command that leads also writes the leaderboard.
    """
    study, schedule = search.study, search.schedule
    done = len(studies.finished(study))
    board = _leaderboard(search, leads)
    board.update()
    with tqdm(
        total=schedule.trials,
        initial=done,
        unit="trial",
        desc="search",
        mininterval=bar_interval(),
    ) as bar:

        def show() -> None:
            if new := len(studies.finished(study)) - bar.n:
                show_best()
                bar.update(new)

        def look() -> None:
            show()
            board.update()

        def show_best(candidate: AnyCandidate | None = None) -> None:
            best = studies.best_score(study)
            parts = [f"best {best:.3f}"] if studies.completed(study) else []
            parts += [] if candidate is None else [f"now {candidate}"]
            bar.set_postfix_str("; ".join(parts))

        def begin(candidate: AnyCandidate) -> None:
            show_best(candidate)
            board.update()

        if search.settings.executor == RAY:
            from medtl.tuning.ray_workers import run_on_cluster

            run_on_cluster(
                search.settings,
                search.backbone_pool,
                study,
                search.store,
                schedule,
                search.run_id,
                look,
            )
        elif search.settings.workers > 1:
            run_crew(search.settings, study, search.store, schedule, search.run_id, look)
        else:
            run_trials(
                study,
                search.backbone_pool,
                schedule,
                search.store.coordinator,
                search.run_id,
                on_candidate=begin,
                on_trial=lambda trial: show(),
            )
    board.close()
    studies.check_completed(study)
    search.timer.end("trials")


def _leaderboard(search: _Search, leads: Callable[[], bool] = lambda: True) -> Leaderboard:
    trials = search.schedule.trials
    return Leaderboard(search.study, search.backbone_pool.space, trials, search.run_id, leads)


def _concluded(search: _Search, probed: dict[NetworkName, Probe]) -> list[str]:
    """Refits, evaluates and registers the best candidate; returns the lines that say so."""
    settings, backbone_pool, study = search.settings, search.backbone_pool, search.study

    def on_dead(trial: FrozenTrial) -> None:
        close_dead(trial.user_attrs.get(studies.RUN_ID), search.run_id)

    studies.wait_for_others(study, search.store.coordinator, on_dead)
    _leaderboard(search).close()
    result = search_result(study, backbone_pool, settings.seed)
    best = result.candidate
    chosen = backbone_pool.of(best)
    mlflow.log_metric("best_valid_auroc", result.score)
    mlflow.set_tags(
        {
            "medtl.architecture": chosen.architecture,
            "medtl.weights": chosen.weights,
            "medtl.cutoff": best.cutoff,
        }
    )
    log_search(result)
    log_interactive_plots(study, backbone_pool.space)
    lines: list[str] = []
    if settings.searches_weights:
        sources = compare_sources(study, backbone_pool, probed, settings.seed)
        sources.log()
        lines = sources.lines()
    transfer = _noted(backbone_pool.transfer(chosen), (*backbone_pool.left_out, *lines))
    if settings.folds:
        concluded, folded = _refitted_on_folds(search, transfer, best)
    else:
        trained = fit_candidate(transfer, best, log_epoch, search.ends)
        concluded, folded = evaluate_and_log(transfer, trained), []
    name = registered_name(settings.model_name, settings.data)
    verdict = register_and_gate(concluded, name, settings.confidence)
    log_entries([_entry(backbone_pool, probed, *each) for each in result.best.items()])
    study.set_user_attr(studies.FINISHED, search.run_id)
    search.timer.end("plots, final model and test scores")
    return [
        f"time          {search.timer.summary()}; {result.slowest()}",
        f"best trial    {result.best_trial} of {result.finished}: {best}, {_score_of(search)}",
        *folded,
        *(f"sources       {line}" for line in lines),
        concluded.summary(),
        f"registered    {name} version {verdict.version}: {verdict.reason}",
        f"serve it      {serve_command(f'models:/{name}@{CHAMPION}')}",
    ]


def _noted(transfer: TransferLearner, lines: Sequence[str]) -> TransferLearner:
    """Adds lines to the notes that the model's card has."""
    dataset = transfer.dataset
    noted = dataclasses.replace(dataset, notes=(*dataset.notes, *lines))
    return dataclasses.replace(transfer, dataset=noted, shared=transfer.activation_cache)


def _refitted_on_folds(
    search: _Search, transfer: TransferLearner, best: AnyCandidate
) -> tuple[Concluded, list[str]]:
    """Trains the best candidate on all folds, and tests the ensemble; returns lines on the folds.

    The trainings of the best trial are reused.
    """
    transfer, folds = with_folds(transfer)

    def fit(own: TransferLearner) -> Trained:
        return fit_candidate(own, best, log_epoch, search.ends)

    found = cross_validate(transfer, folds, best.cutoff, fit)
    log_cross_validation(found)
    lines = [found.summary(), f"chosen        {CHOSEN}"]
    return evaluate_ensemble(transfer, found), lines


def _score_of(search: _Search) -> str:
    """Formats the score of the best trial."""
    best, folds = search.study.best_trial, search.schedule.folds
    if not folds:
        return f"validation AUROC {studies.score_of(best):.3f}"
    std = best.user_attrs[studies.SPREAD]
    return f"mean AUROC of {folds} folds {studies.score_of(best):.3f} ± {std:.3f}"


def schedule_of(settings: TuneSettings, backbone_pool: BackbonePool) -> Schedule:
    """Returns the limits and the pruner of the search."""
    trials = settings.trials
    if settings.transfer == "hybrid":
        # only the cut-off is searched: no more trials than cut-offs
        trials = min(trials, sum(len(each.space.cutoffs) for each in backbone_pool.all))
    return Schedule(trials, settings.timeout, settings.pruner, settings.seed, settings.folds)


def _probed(search: _Search) -> dict[NetworkName, Probe]:
    """Returns the layer probe of each network."""
    kind: Literal["layers", "blocks"]
    kind = "layers" if search.settings.cutoffs == "layers" else "blocks"
    backbone_pool, probed = search.backbone_pool, {}
    for each in backbone_pool.all:
        own = probed[each.name] = probe(backbone_pool.transfer(each), kind)
        log_probe(own.curve, each.folder)
    return probed


def starts_of(
    settings: TuneSettings,
    backbone_pool: BackbonePool,
    probed: Mapping[NetworkName, Probe],
    known: Sequence[Entry],
) -> list[Start]:
    """Returns the first trials of a search, in order.

    Plain recipes come first where all cut-offs are searched, then the best of `known` similar data
    and of the layer probes.
    """
    count = EARLY_OF_EACH if backbone_pool.several else EARLY
    starts = {}
    for each in backbone_pool.all:
        # adapters have no cut at the head
        all_cutoffs = settings.cutoffs in ("blocks", "layers") and settings.transfer != "lora"
        plain = plain_recipes(each.space) if all_cutoffs and isinstance(each.space, Space) else []
        pointed = first_trials(each.space, probed[each.name], each.backbone, known, count)
        tried = [start.candidate for start in plain]
        starts[each.name] = [
            *plain,
            *(start for start in pointed if start.candidate not in tried),
        ]
    return in_turn(starts) if backbone_pool.several else starts[backbone_pool.all[0].name]


def _place(candidate: AnyCandidate) -> str:
    return " ".join(filter(None, (str(candidate.network), candidate.cutoff)))


def _entry(
    backbone_pool: BackbonePool,
    probed: dict[NetworkName, Probe],
    best: AnyCandidate,
    score: float,
) -> Entry:
    """Builds the dictionary entry of one network: its best candidate and its probe."""
    entrant = backbone_pool.of(best)
    own = probed[entrant.name]
    recipe = best.params()
    if entrant.settings.hidden:
        recipe["hidden"] = entrant.settings.hidden
    return Entry(
        architecture=entrant.architecture,
        weights=entrant.weights,
        backbone=entrant.backbone,
        data=backbone_pool.dataset.name,
        fingerprint=backbone_pool.dataset.fingerprint,
        cutoff=best.cutoff,
        recipe={k: v for k, v in recipe.items() if k not in ("architecture", "weights", "cutoff")},
        valid_auroc=score,
        curve=dict(zip(own.curve["cutoff"], own.curve["score"].round(4), strict=True)),
        description=own.description,
    )
