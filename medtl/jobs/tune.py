"""Search optimizer, learning rate and cut-off; refit, evaluate, register and gate the best."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable

import mlflow
import optuna
from optuna.trial import FrozenTrial
from tqdm import tqdm

from medtl.errors import ParameterError
from medtl.jobs.conclude import conclude, registered
from medtl.jobs.names import registered_name, study_name
from medtl.jobs.prepare import prepare
from medtl.jobs.pretrain import with_phantom_backbone
from medtl.keep import key_of
from medtl.networks.cutpoints import cut_points, resolve
from medtl.search import study as studies
from medtl.search.dictionary import Entry, nearest
from medtl.search.probe import Probe, probe
from medtl.search.space import (
    AnyCandidate,
    AnySpace,
    Candidate,
    HybridCandidate,
    HybridSpace,
    Space,
)
from medtl.search.study import Pruned, Schedule
from medtl.settings import TuneSettings, comma_list
from medtl.tracking.journal import log_epoch, log_probe, log_search
from medtl.tracking.ocl import known_entries, log_entry
from medtl.tracking.runs import close_cut_off_run, embedded_storage, nested_run, tracked_run
from medtl.training.loop import Epoch
from medtl.training.transfer import Trained, Transfer

# Settings that say how long, where and by whom is searched; all others make another question.
NOT_ASKED = frozenset(
    ("trials", "timeout", "study", "storage", "workers", "executor", "confidence", "model_name",
     "device", "keep")
)  # fmt: skip

NEIGHBOURS = 2  # known data sets whose best trial is tried early
PROBED = 2  # cut-offs of the layer probe that are tried early


def tune(settings: TuneSettings) -> None:
    """Runs the whole search in one parent run, with a nested run a trial.

    The validation split chooses; the test split is scored once, for the refitted best model.
    """
    with tracked_run("tune", settings) as run:
        settings = with_phantom_backbone(settings)
        transfer = prepare(settings)
        space = search_space(settings, transfer)
        trials = settings.trials
        if isinstance(space, HybridSpace):
            trials = min(trials, len(space.cutoffs))
        schedule = Schedule(
            trials, settings.timeout, settings.pruner, settings.epochs, settings.seed
        )
        study = _open(settings, transfer, space, schedule)
        mlflow.set_tag("medtl.study", study.study_name)
        network, architecture = transfer.backbone.network, transfer.backbone.architecture
        transfer.keeper.expect(resolve(network, architecture, name) for name in space.cutoffs)
        probed = probe(transfer, "layers" if settings.cutoffs == "layers" else "blocks")
        log_probe(probed.curve)
        if not study.get_trials(deepcopy=False):
            for start in first_trials(space, probed, transfer):
                print(f"tried early   {start.candidate.cutoff}: {start.why}")
                study.enqueue_trial(space.params(start.candidate), {"why": start.why})
        _search(study, space, schedule, transfer)
        best = space.candidate(study.best_trial.params)
        mlflow.log_metric("best_valid_auroc", study.best_value)
        mlflow.set_tag("medtl.cutoff", best.cutoff)
        log_search(studies.table(study, space), studies.importances(study, settings.seed))
        concluded = conclude(transfer, trained(transfer, best, log_epoch))
        name = registered_name(settings.model_name, settings.data)
        verdict = registered(concluded, name, settings.confidence)
        log_entry(_entry(transfer, best, study.best_value, probed))
        study.set_user_attr(studies.FINISHED, run.info.run_id)
    print(
        f"best trial    {study.best_trial.number} of {len(studies.finished(study))}: "
        f"{best}, validation AUROC {study.best_value:.3f}"
    )
    print(concluded.scored.summary())
    print(f"registered    {name} version {verdict.version}: {verdict.reason}")
    print(f"serve it      mlflow models serve -m models:/{name}@champion --env-manager local")


def search_space(settings: TuneSettings, transfer: Transfer) -> AnySpace:
    """The space that the settings ask for; every cut-off named is checked."""
    network, architecture = transfer.backbone.network, transfer.backbone.architecture
    if settings.cutoffs in ("blocks", "layers"):
        points = cut_points(network, settings.cutoffs)
    else:
        named = comma_list("cutoffs", settings.cutoffs)
        resolved = (resolve(network, architecture, name) for name in named)
        # two names of one place (a block and its first layer) are one cut
        at = {point.key: point for point in resolved}
        points = [at[key] for key in sorted(at)]
    if settings.transfer == "hybrid":
        # before the very first layer there are no features
        later = tuple(point.name for point in points if point.key > (0,))
        if not later:
            raise ParameterError("cutoffs", settings.cutoffs, "later layers where transfer=hybrid")
        return HybridSpace(settings.classifier, later)
    names = tuple(point.name for point in points)
    return Space(settings.optimizer_names, settings.lr_low, settings.lr_high, names)


@dataclasses.dataclass(frozen=True)
class Start:
    """A candidate that is tried before the sampler is asked, and why."""

    candidate: AnyCandidate
    why: str


def first_trials(space: AnySpace, probed: Probe, transfer: Transfer) -> list[Start]:
    """What the nearest known data sets and the layer probe would try first.

    A hybrid has nothing but its cut-off to search: all are tried, in the probe's order.
    """
    ranked = [name for name in probed.best(len(probed.curve)) if name in space.cutoffs]
    if isinstance(space, HybridSpace):
        others = [name for name in space.cutoffs if name not in ranked]
        why = "in the order of the layer probe"
        return [Start(HybridCandidate(space.classifier, name), why) for name in ranked + others]
    starts = []
    backbone = transfer.backbone.digest()
    for near in nearest(probed.description, backbone, known_entries(), NEIGHBOURS):
        entry = near.entry
        if entry.cutoff in space.cutoffs and entry.recipe.get("optimizer") in space.optimizers:
            candidate = Candidate(entry.recipe["optimizer"], entry.recipe["lr"], entry.cutoff)
            why = f"best on {entry.data} (distance {near.distance:.2f}, run {entry.run_id})"
            starts.append(Start(candidate, why))
    lr = math.sqrt(space.lr_low * space.lr_high)
    for cutoff in ranked[:PROBED]:
        starts.append(Start(Candidate(space.optimizers[0], lr, cutoff), "best of the layer probe"))
    return starts


def _entry(transfer: Transfer, best: AnyCandidate, score: float, probed: Probe) -> Entry:
    curve = probed.curve
    return Entry(
        architecture=transfer.backbone.architecture,
        weights=transfer.backbone.weights,
        backbone=transfer.backbone.digest(),
        data=transfer.dataset.name,
        fingerprint=transfer.dataset.fingerprint,
        cutoff=best.cutoff,
        recipe={k: v for k, v in best.params().items() if k != "cutoff"},
        valid_auroc=score,
        curve=dict(zip(curve["cutoff"], curve["score"].round(4), strict=True)),
        description=probed.description,
    )


def _open(
    settings: TuneSettings, transfer: Transfer, space: AnySpace, schedule: Schedule
) -> optuna.Study:
    """The study, new or to be gone on with; what a kill left behind is put in order."""
    asked = {
        name: value for name, value in dataclasses.asdict(settings).items() if name not in NOT_ASKED
    }
    asks = key_of(asked, transfer.dataset.fingerprint, transfer.backbone.digest(), space.cutoffs)
    name = settings.study or study_name(
        transfer.dataset.name, transfer.backbone.architecture, transfer.backbone.weights
    )
    storage = settings.storage or embedded_storage()
    study = studies.open_study(storage, name, bool(settings.study), asks, schedule)
    studies.restart_cut_off_trials(study)
    run_id = mlflow.active_run().info.run_id
    close_cut_off_run(study.user_attrs.get(studies.RUN_ID), successor=run_id)
    study.set_user_attr(studies.RUN_ID, run_id)
    done = len(studies.finished(study))
    if done:
        print(f"study {study.study_name}: going on after {done} finished trials")
    return study


def _search(study: optuna.Study, space: AnySpace, schedule: Schedule, transfer: Transfer) -> None:
    """Runs the trials, each in a nested MLflow run, under a progress bar."""
    done = len(studies.finished(study))
    with tqdm(total=schedule.trials, initial=done, unit="trial", desc="search") as bar:

        def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
            bar.set_postfix_str(str(candidate))
            return _trial(study, trial, candidate, transfer)

        def on_trial(trial: FrozenTrial) -> None:
            bar.n = len(studies.finished(study))
            bar.refresh()

        studies.run_trials(study, space, schedule, objective, on_trial)
    for name, note in transfer.keeper.notes.items():
        print(f"activations at {name}: {note}", file=sys.stderr)


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
