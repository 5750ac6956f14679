"""The side of `medtl`: the same trials, and its search, on the same folder."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from benchmarks.trials import Found, Trial
from medtl.commands.tune import schedule_of, starts_of
from medtl.networks.cutoffs import resolve
from medtl.pipeline.setup import Origin, training_data
from medtl.settings.search import TuneSettings
from medtl.settings.training import TrainSettings
from medtl.training.learner import TransferLearner
from medtl.training.loop import Epoch, Stopped
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool
from medtl.tuning.linear_probe import probe
from medtl.tuning.search_space import AnyCandidate
from medtl.tuning.storage import open_store
from medtl.tuning.trials import fit_candidate

MANY = 10_000  # trials: a search ends by its score or by the clock


@dataclass
class OurSide:
    """Trains on a folder with `labels.csv`; without augmentation, as the other sides."""

    folder: Path
    architecture: str
    weights: str  # imagenet or random
    size: int = 224  # side of the square input, in pixels
    seed: int = 0
    precision: str = "auto"
    patience: int = 10**6  # epochs without a better score before a trial stops
    transfer: TransferLearner = field(init=False)

    def prepare(self) -> None:
        """Decodes the images and loads the weights, once for all trials."""
        settings = TrainSettings(
            data=self._table,
            architecture=self.architecture,
            weights=self.weights,
            image_size=self.size,
            duplicates="allow",
            seed=self.seed,
            precision=self.precision,
            augment="none",
            patience=self.patience,
        )
        origin = Origin.of(settings)
        dataset = training_data(settings, origin.rendering)
        self.transfer = origin.transfer(dataset, settings)

    def expect(self, cutoffs: list[str]) -> None:
        """Announces the cut-offs of the trials, as a search does."""
        network = self.transfer.backbone.network
        self.transfer.activation_cache.expect(
            resolve(network, self.architecture, name) for name in cutoffs
        )

    def run(self, trial: Trial, epochs: int) -> Iterator[tuple[float, float]]:
        """Yields the validation AUROC and the seconds since the trial began after each epoch."""
        began = time.perf_counter()
        seen: list[tuple[float, float]] = []

        def on_epoch(epoch: Epoch) -> None:
            seen.append((epoch.valid_auroc, time.perf_counter() - began))

        # with a number of epochs a head is trained by gradient too, as on the other sides
        self.transfer.settings = dataclasses.replace(self.transfer.settings, epochs=epochs)
        recipe = self.transfer.recipe(trial.optimizer, trial.lr)
        self.transfer.train(trial.cutoff, recipe, on_epoch)
        yield from seen

    def search_until(self, score: float, epochs: int, limit: float, pruner: str) -> Found:
        """Searches as `tune` does, until a validation AUROC is reached.

        No trial starts later than `limit` seconds after the first file read. `epochs=0` is the
        default of `tune`. Trials are not logged as MLflow runs, and the dictionary is empty.
        """
        began = time.perf_counter()
        settings = TuneSettings(
            data=self._table,
            architecture=self.architecture,
            weights=self.weights,
            image_size=self.size,
            duplicates="allow",
            seed=self.seed,
            precision=self.precision,
            epochs=epochs,
            pruner=pruner,
            trials=MANY,
        )
        backbone_pool = BackbonePool.open(
            settings, lambda settings, rendering, _: training_data(settings, rendering)
        )
        (entrant,) = backbone_pool.all
        probed = {entrant.name: probe(backbone_pool.transfer(entrant), "blocks")}
        starts = starts_of(settings, backbone_pool, probed, known=[])
        best, way = 0.0, ""

        def objective(trial: optuna.Trial, candidate: AnyCandidate) -> float:
            def on_epoch(epoch: Epoch) -> None:
                nonlocal best, way
                if epoch.valid_auroc > best:
                    best = epoch.valid_auroc
                    way = f"trial {trial.number}, epoch {epoch.number}: {candidate}"
                if best >= score:
                    raise _Reached
                studies.report(trial, epoch)

            return fit_candidate(
                backbone_pool.transfer(entrant), candidate, on_epoch
            ).fit.best.valid_auroc

        with tempfile.TemporaryDirectory() as root:
            schedule = schedule_of(settings, backbone_pool)
            store = open_store(f"sqlite:///{root}/optuna.db")
            study = studies.open_study(store, "search", True, backbone_pool.fingerprint, schedule)
            params = [(backbone_pool.space.params(start.candidate), start.why) for start in starts]
            studies.prepare(study, params, run_id="")
            left = max(1.0, limit - (time.perf_counter() - began))
            schedule = dataclasses.replace(schedule, timeout=left)
            with contextlib.suppress(_Reached):
                studies.run_trials(study, backbone_pool.space, schedule, objective)
            trials = len(studies.begun(study))
            failed = len(studies.failed(study))
        return Found(time.perf_counter() - began, best, trials, failed, way)

    @property
    def _table(self) -> str:
        return str(self.folder / "labels.csv")


class _Reached(Stopped):
    """Ends the search within a trial, whose checkpoint is dropped."""
