"""A search on phantoms, killed at any moment again and again, beside one that nobody disturbed.

Every life of the search is a process of its own that is killed, with all it has started, after a
time drawn from the length of the undisturbed search: while it imports, pretrains, probes, trains,
refits, evaluates, registers. The first search pretrains its backbone. When one ends before the
kills are spent, another begins in an empty folder, from random weights, which takes less long; each
must end as the undisturbed one of its kind did.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from medtl.data.phantoms import write_chest_phantoms

ROOT = Path(__file__).parents[1]
NAME = "kills"  # of the study and of the registered model
WRONG = "WRONG "  # begins the lines at the end that tell of what should not be
TRIALS = 8
ASKED = {"study": NAME, "model_name": NAME, "trials": TRIALS, "cutoffs": "layer2,layer3,layer4"}
PRETRAINED = {"data": "phantoms", "epochs": 4, "views": 2}
SMALL = {"architecture": "small_resnet", "weights": "random", "image_size": 96}
PATIENTS = 120  # about 360 images
RUNNING = """SELECT tags.value, runs.start_time FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'medtl.kind' AND runs.status = 'RUNNING'"""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Result:
    """What a search came to."""

    trials: list[tuple]  # state, parameters, score, the score of each epoch
    scores: dict[str, float]  # best validation score, and the test scores with their bounds
    weights: str  # hash of the champion's weights
    registered: dict[str, tuple]  # versions of each registered model, and its aliases


@dataclass
class Toll:
    """What the kills have cost so far; all but the kills should be 0."""

    kills: Counter = field(default_factory=Counter)  # by what the search was at
    searches: int = 0
    lost: int = 0  # finished trials that were no longer there, or not the same
    running: int = 0  # MLflow runs that stand RUNNING when the search has ended
    unlinked: int = 0  # runs that were cut off and do not name the run that went on
    different: Counter = field(default_factory=Counter)  # searches that ended otherwise, by what


class Search:
    """A search in a folder of its own: tracking store, Optuna storage, cache, and a log."""

    def __init__(self, folder: Path, asked: Mapping[str, object]) -> None:
        folder.mkdir()
        self.log = folder / "log.txt"
        self._folder = folder
        self._asked = asked
        self._store = f"sqlite:///{folder / 'mlflow.db'}"
        self._seen: dict[int, tuple] = {}
        self._started = 0.0  # of this life, in milliseconds since 1970
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Begins it, or goes on with it, by the same command."""
        asked = [f"--{name}={value}" for name, value in {**ASKED, **self._asked}.items()]
        command = [sys.executable, "-m", "entrypoints.tune", *asked]
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": self._store,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MEDTL_CACHE": str(self._folder / "cache"),
            "PYTHONPATH": str(ROOT),
        }
        self._started = 1000 * time.time()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def ended(self, within: float | None = None) -> bool:
        """Waits for its end; False when `within` seconds pass before.

        Raises:
            RuntimeError: it failed by itself.
        """
        try:
            status = self._process.wait(within)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            tail = self.log.read_text()[-3000:]
            raise RuntimeError(f"the search failed, status {status}:\n{tail}")
        return True

    def kill(self) -> str:
        """Kills it with all its processes; what it was at."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return self._standing()

    def lost(self) -> int:
        """Finished trials that were there at an earlier look, and are not as they were."""
        now = {trial[0]: trial for trial in self._trials()}
        lost = sum(now.get(number) != trial for number, trial in self._seen.items())
        self._seen |= now
        return lost

    def runs(self) -> list[Run]:
        """All its MLflow runs, when it has ended."""
        client = MlflowClient(self._store)
        experiments = [each.experiment_id for each in client.search_experiments()]
        return list(client.search_runs(experiments, max_results=5000))

    def result(self) -> Result:
        """What it came to, when it has ended."""
        client = MlflowClient(self._store)
        # a life that begins after the end has nothing left to do; the newest run comes first
        *_, run = (
            run
            for run in self.runs()
            if run.data.tags.get("medtl.kind") == "tune" and run.info.status == "FINISHED"
        )
        scores = {
            name: value
            for name, value in run.data.metrics.items()
            if name.startswith("test_") or name == "best_valid_auroc"
        }
        registered = {}
        for model in client.search_registered_models():
            versions = client.search_model_versions(f"name='{model.name}'")
            registered[model.name] = (len(versions), dict(model.aliases))
        champion = client.get_model_version_by_alias(NAME, "champion")
        (weights,) = self._folder.glob(
            f"mlruns/**/{champion.source.rpartition('/')[2]}/**/model.safetensors"
        )
        found = hashlib.sha256(weights.read_bytes()).hexdigest()
        # a trial that was killed as its parameters were drawn has a number, and nothing else
        trials = [trial[1:] for trial in self._trials()]
        return Result(trials, scores, found, registered)

    def _trials(self) -> list[tuple]:
        if not self._rows("optuna.db", f"SELECT 1 FROM studies WHERE study_name = '{NAME}'"):
            return []
        storage = f"sqlite:///{self._folder / 'optuna.db'}"
        study = optuna.load_study(study_name=NAME, storage=storage)
        return [
            (each.number, each.state.name, each.params, each.value, each.intermediate_values)
            for each in study.get_trials(deepcopy=False)
            if each.state in ENDED
        ]

    def _standing(self) -> str:
        """What the search was at when it was killed."""
        rows = self._rows("mlflow.db", RUNNING)
        kinds = {kind for kind, _ in rows}
        # an earlier life's runs stand RUNNING too until the next has closed them
        newest = max((start for _, start in rows), default=0)
        if "tune" not in kinds or newest < self._started:
            return "starting"
        for kind, what in (("promote", "registering"), ("pretrain", "pretraining")):
            if kind in kinds:
                return what
        if len(self._trials()) >= TRIALS:
            return "refitting, evaluating"
        return "in a trial" if "trial" in kinds else "between, or probing"

    def _rows(self, database: str, query: str) -> list[tuple]:
        """What a database answers as it was left: nothing in it is made or mended by the look."""
        file = self._folder / database
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(file)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:  # killed before the table was made
                return []


def kill_and_compare(folder: Path, kills: int, seed: int) -> Iterator[str]:
    """Runs searches until `kills` of their processes were killed; yields lines that tell of it."""
    generator, toll = np.random.default_rng(seed), Toll()
    images = folder / "images"
    images.mkdir()
    write_chest_phantoms(images, seed=seed, patients=PATIENTS, image_size=96)
    small = {"data": images / "labels.csv", **SMALL}
    undisturbed: dict[str, tuple[Result, float]] = {}
    for kind, asked in chain([("pretrained", PRETRAINED)], repeat(("small", small))):
        if toll.kills.total() >= kills:
            break
        if kind not in undisturbed:
            undisturbed[kind] = _undisturbed(folder / f"undisturbed-{kind}", asked)
            expected, length = undisturbed[kind]
            yield f"undisturbed, {kind}: {length:.0f} s, {expected.registered}"
        expected, length = undisturbed[kind]
        toll.searches += 1
        before = toll.kills.total()
        search = Search(folder / f"search-{toll.searches}", asked)
        search.start()
        while toll.kills.total() < kills and not search.ended(generator.uniform(0, length)):
            toll.kills[search.kill()] += 1
            toll.lost += search.lost()
            search.start()
        search.ended()
        toll.lost += search.lost()
        _compare(expected, search, toll)
        yield f"search {toll.searches}, {kind}: killed {toll.kills.total() - before} times"
    yield from _lines(toll)


def _undisturbed(folder: Path, asked: Mapping[str, object]) -> tuple[Result, float]:
    """What a search comes to that nobody kills, and its seconds."""
    search, began = Search(folder, asked), time.monotonic()
    search.start()
    search.ended()
    return search.result(), time.monotonic() - began


def _compare(expected: Result, search: Search, toll: Toll) -> None:
    runs = search.runs()
    toll.running += sum(run.info.status == "RUNNING" for run in runs)
    toll.unlinked += sum(
        run.info.status == "KILLED" and "medtl.successor" not in run.data.tags for run in runs
    )
    result = search.result()
    for name in ("trials", "scores", "weights", "registered"):
        toll.different[name] += getattr(result, name) != getattr(expected, name)


def _lines(toll: Toll) -> Iterator[str]:
    yield f"{toll.kills.total()} kills in {toll.searches} searches:"
    for what, count in toll.kills.most_common():
        yield f"  {what:<24}{count:>4}"
    counted = {
        "finished trials lost": toll.lost,
        "runs left RUNNING": toll.running,
        "cut-off runs without successor": toll.unlinked,
        **{f"searches with other {name}": count for name, count in toll.different.items()},
    }
    for what, count in counted.items():
        yield f"{WRONG if count else ''}{what:<32}{count:>4}"
