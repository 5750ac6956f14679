"""Search architecture, cut-off, optimizer, learning rate; refit, evaluate, register the best."""

from __future__ import annotations

import sys
from collections.abc import Callable

import mlflow
import optuna
from optuna.trial import FrozenTrial
from tqdm import tqdm

from medtl.jobs.conclude import conclude, registered
from medtl.jobs.entrants import Entrants
from medtl.jobs.names import registered_name
from medtl.search import study as studies
from medtl.search.dictionary import Entry
from medtl.search.probe import Probe, probe
from medtl.search.space import AnyCandidate, HybridCandidate
from medtl.search.starts import Start, first_trials, in_turn
from medtl.search.study import Pruned, Schedule
from medtl.settings import TuneSettings
from medtl.tracking.journal import log_cutoffs, log_epoch, log_probe, log_search
from medtl.tracking.ocl import known_entries, log_entries
from medtl.tracking.runs import close_cut_off_run, embedded_storage, nested_run, tracked_run
from medtl.training.loop import Epoch
from medtl.training.transfer import Trained, Transfer

EARLY = 2  # best trials of known data sets, and cut-offs of the layer probe, that are tried early
EARLY_OF_EACH = 1  # the same where several architectures share the trials


def tune(settings: TuneSettings) -> None:
    """Runs the whole search in one parent run, with a nested run a trial.

    The validation split chooses; the test split is scored once, for the refitted best model.
    """
    with tracked_run("tune", settings) as run:
        entrants = Entrants(settings)
        schedule = _schedule(settings, entrants)
        study = _open(settings, entrants, schedule)
        mlflow.set_tag("medtl.study", study.study_name)
        probed = _probed(settings, entrants)
        if not study.get_trials(deepcopy=False):
            for start in _starts(entrants, probed):
                print(f"tried early   {_place(start.candidate)}: {start.why}")
                study.enqueue_trial(entrants.space.params(start.candidate), {"why": start.why})
        _search(study, entrants, schedule)
        found = studies.best_of_each(study, entrants.space)
        best = next(iter(found))
        chosen = entrants.of(best)
        mlflow.log_metric("best_valid_auroc", study.best_value)
        mlflow.set_tags(
            {
                "medtl.architecture": chosen.architecture,
                "medtl.weights": chosen.weights,
                "medtl.cutoff": best.cutoff,
            }
        )
        _log_trials(study, entrants, settings.seed)
        transfer = entrants.transfer(chosen)
        concluded = conclude(transfer, trained(transfer, best, log_epoch))
        name = registered_name(settings.model_name, settings.data)
        verdict = registered(concluded, name, settings.confidence)
        log_entries([_entry(entrants, probed, *each) for each in found.items()])
        study.set_user_attr(studies.FINISHED, run.info.run_id)
    print(
        f"best trial    {study.best_trial.number} of {len(studies.finished(study))}: "
        f"{best}, validation AUROC {study.best_value:.3f}"
    )
    print(concluded.scored.summary())
    print(f"registered    {name} version {verdict.version}: {verdict.reason}")
    print(f"serve it      mlflow models serve -m models:/{name}@champion --env-manager local")


def _schedule(settings: TuneSettings, entrants: Entrants) -> Schedule:
    trials = settings.trials
    if settings.transfer == "hybrid":
        # its cut-offs are all there is to try
        trials = min(trials, sum(len(each.space.cutoffs) for each in entrants.all))
    return Schedule(trials, settings.timeout, settings.pruner, settings.epochs, settings.seed)


def _open(settings: TuneSettings, entrants: Entrants, schedule: Schedule) -> optuna.Study:
    """The study, new or to be gone on with; what a kill left behind is put in order."""
    name = settings.study or entrants.study_name
    storage = settings.storage or embedded_storage()
    study = studies.open_study(storage, name, bool(settings.study), entrants.asks, schedule)
    studies.restart_cut_off_trials(study)
    run_id = mlflow.active_run().info.run_id
    close_cut_off_run(study.user_attrs.get(studies.RUN_ID), successor=run_id)
    study.set_user_attr(studies.RUN_ID, run_id)
    done = len(studies.finished(study))
    if done:
        print(f"study {study.study_name}: going on after {done} finished trials")
    return study


def _probed(settings: TuneSettings, entrants: Entrants) -> dict[str, Probe]:
    """The layer probe of each architecture, by its name."""
    kind = "layers" if settings.cutoffs == "layers" else "blocks"
    probed = {}
    for each in entrants.all:
        found = probed[each.architecture] = probe(entrants.transfer(each), kind)
        log_probe(found.curve, each.folder)
    return probed


def _starts(entrants: Entrants, probed: dict[str, Probe]) -> list[Start]:
    known = known_entries()
    count = EARLY_OF_EACH if entrants.several else EARLY
    starts = {
        each.architecture: first_trials(
            each.space, probed[each.architecture], each.backbone, known, count
        )
        for each in entrants.all
    }
    return in_turn(starts) if entrants.several else starts[entrants.all[0].architecture]


def _place(candidate: AnyCandidate) -> str:
    return " ".join(filter(None, (candidate.architecture, candidate.cutoff)))


def _search(study: optuna.Study, entrants: Entrants, schedule: Schedule) -> None:
    """Runs the trials, each in a nested MLflow run, under a progress bar."""
    done = len(studies.finished(study))
    with tqdm(total=schedule.trials, initial=done, unit="trial", desc="search") as bar:

        def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
            bar.set_postfix_str(str(candidate))
            transfer = entrants.transfer(entrants.of(candidate))
            return _trial(study, trial, candidate, transfer)

        def on_trial(trial: FrozenTrial) -> None:
            bar.n = len(studies.finished(study))
            bar.refresh()

        studies.run_trials(study, entrants.space, schedule, objective, on_trial)
    for place, note in entrants.notes.items():
        print(f"activations at {place}: {note}", file=sys.stderr)


def trained(
    transfer: Transfer, candidate: AnyCandidate, on_epoch: Callable[[Epoch], None]
) -> Trained:
    """The model of a candidate."""
    if isinstance(candidate, HybridCandidate):
        model = transfer.train_hybrid(candidate.cutoff)
        on_epoch(model.fit.best)
        return model
    recipe = transfer.recipe(candidate.optimizer, candidate.lr)
    return transfer.train(candidate.cutoff, recipe, on_epoch)


def _trial(
    study: optuna.Study, trial: optuna.Trial, candidate: AnyCandidate, transfer: Transfer
) -> float:
    """One trial in a run of its own; its state stands in the tag `medtl.state`."""
    tags = {
        "medtl.kind": "trial",
        "medtl.study": study.study_name,
        "medtl.trial": str(trial.number),
        "medtl.architecture": transfer.backbone.architecture,
        "medtl.weights": transfer.backbone.weights,
        "medtl.cutoff": candidate.cutoff,
        "medtl.data": transfer.dataset.fingerprint,
        "medtl.state": "failed",  # until it is known better
    }
    pruned: Pruned | None = None
    with nested_run(f"trial {trial.number}", tags, candidate.params()) as run:
        trial.set_user_attr(studies.RUN_ID, run.info.run_id)

        def on_epoch(epoch: Epoch) -> None:
            log_epoch(epoch)
            studies.report(trial, epoch)

        try:
            fitted = trained(transfer, candidate, on_epoch).fit
        except Pruned as reason:
            # raised again outside the run: MLflow would call a pruned trial FAILED
            pruned = reason
            mlflow.set_tags({"medtl.state": "pruned", "mlflow.note.content": str(reason)})
        else:
            best = fitted.best
            mlflow.log_metrics({"best_valid_auroc": best.valid_auroc, "best_epoch": best.number})
            mlflow.set_tag("medtl.state", "complete")
    if pruned is not None:
        raise pruned
    return best.valid_auroc


def _log_trials(study: optuna.Study, entrants: Entrants, seed: int) -> None:
    trials = studies.table(study, entrants.space)
    log_search(trials, studies.importances(study, seed))
    for each in entrants.all:
        own = trials[trials["architecture"] == each.architecture] if entrants.several else trials
        log_cutoffs(own, each.space.cutoffs, each.folder)


def _entry(entrants: Entrants, probed: dict[str, Probe], best: AnyCandidate, score: float) -> Entry:
    """What the search says of one architecture: its best candidate, and its probe."""
    entrant = entrants.of(best)
    found = probed[entrant.architecture]
    recipe = best.params()
    return Entry(
        architecture=entrant.architecture,
        weights=entrant.weights,
        backbone=entrant.backbone,
        data=entrants.dataset.name,
        fingerprint=entrants.dataset.fingerprint,
        cutoff=best.cutoff,
        recipe={k: v for k, v in recipe.items() if k not in ("architecture", "cutoff")},
        valid_auroc=score,
        curve=dict(zip(found.curve["cutoff"], found.curve["score"].round(4), strict=True)),
        description=found.description,
    )
