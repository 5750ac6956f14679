"""Our side: the same trials through `medtl`, on the same folder."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from benchmarks.trials import TEN, Trial
from medtl.data.dataset import load
from medtl.data.reading import Reading
from medtl.networks.architectures import build
from medtl.networks.backbone import Backbone
from medtl.networks.cutpoints import resolve
from medtl.networks.weights import load_weights
from medtl.search.probe import probe
from medtl.search.space import Candidate, Space
from medtl.search.study import Schedule, report, run_trials
from medtl.settings import TrainSettings
from medtl.training.loop import Epoch
from medtl.training.transfer import Transfer

SIZE = 224
BATCH = 32


@dataclass
class OurSide:
    """Trains on a folder with `train/` and `valid/`, without augmentation, as the plain side."""

    folder: Path
    architecture: str
    weights: str  # imagenet or random
    precision: str = "auto"
    patience: int = 10**6  # epochs without a better score before a trial stops
    transfer: Transfer = field(init=False)

    def prepare(self) -> None:
        """Decodes the images and loads the weights, once for all trials."""
        settings = TrainSettings(
            data=str(self.folder / "labels.csv"),
            augment="none",
            batch_size=BATCH,
            patience=self.patience,
            precision=self.precision,
        )
        dataset = load(settings.data, SIZE, settings.seed, reading=Reading(duplicates="allow"))
        network = build(self.architecture, len(dataset.classes), SIZE, settings.seed)
        expected = load_weights(network, self.architecture, self.weights)
        backbone = Backbone(self.architecture, self.weights, network, expected)
        self.transfer = Transfer(backbone, dataset, settings)

    def expect(self, cutoffs: list[str]) -> None:
        """Tells which cut-offs will come, as a search does."""
        network = self.transfer.backbone.network
        self.transfer.keeper.expect(resolve(network, self.architecture, name) for name in cutoffs)

    def run(self, trial: Trial, epochs: int) -> Iterator[tuple[float, float]]:
        """Yields the validation AUROC and the seconds since the trial began after each epoch."""
        began = time.perf_counter()
        seen: list[tuple[float, float]] = []

        def on_epoch(epoch: Epoch) -> None:
            seen.append((epoch.valid_auroc, time.perf_counter() - began))

        recipe = self.transfer.recipe(trial.optimizer, trial.lr)
        recipe = dataclasses.replace(recipe, epochs=epochs)
        self.transfer.train(trial.cutoff, recipe, on_epoch)
        yield from seen

    def search_until(self, score: float, epochs: int, limit: float) -> tuple[float, float, int]:
        """Probe and pruned search until a validation AUROC is reached.

        Returns the seconds it took from the first file read, the best score, and the trials begun;
        no trial is begun after `limit` seconds.
        """
        began = time.perf_counter()
        self.prepare()
        cutoffs = tuple(dict.fromkeys(trial.cutoff for trial in reversed(TEN)))
        self.expect(list(cutoffs))
        space = Space(("adam", "sgd", "rmsprop"), 1e-4, 1e-2, cutoffs)
        best, reached = 0.0, None

        def objective(trial: optuna.Trial, candidate: Candidate) -> float:
            def on_epoch(epoch: Epoch) -> None:
                nonlocal best, reached
                best = max(best, epoch.valid_auroc)
                if best >= score:
                    reached = time.perf_counter() - began
                    raise _Reached
                report(trial, epoch)

            recipe = self.transfer.recipe(candidate.optimizer, candidate.lr)
            recipe = dataclasses.replace(recipe, epochs=epochs, patience=4)
            return self.transfer.train(candidate.cutoff, recipe, on_epoch).fit.best.valid_auroc

        study = optuna.create_study(
            direction="maximize", pruner=optuna.pruners.MedianPruner(4, n_warmup_steps=2)
        )
        ranked = [name for name in probe(self.transfer, "blocks").best(100) if name in cutoffs]
        for name in ranked[:2]:
            study.enqueue_trial(space.params(Candidate("adam", 1e-3, name)))
        with contextlib.suppress(_Reached):
            run_trials(study, space, Schedule(1000, limit, "median", epochs, 0), objective)
        return reached or time.perf_counter() - began, best, len(study.trials)


class _Reached(Exception):
    pass
