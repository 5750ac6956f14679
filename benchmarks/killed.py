"""A command in a folder of its own, that is begun, killed, and looked at from outside."""

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
from collections.abc import Mapping
from pathlib import Path

import optuna
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

ROOT = Path(__file__).parents[1]
NAME = "kills"  # of the study and of the registered model
RUNNING = """SELECT tags.value, runs.start_time, runs.run_uuid
FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'medtl.kind' AND runs.status = 'RUNNING'"""
FINISHED = """SELECT 1 FROM runs JOIN tags USING (run_uuid)
WHERE tags.key = 'medtl.kind' AND tags.value = '{}' AND runs.status = 'FINISHED'"""
EPOCHS = "SELECT count(*) FROM metrics WHERE key = 'train_loss' AND run_uuid = '{}'"
# what a cell came to; `seconds` and the like are another thing
CELLS = """SELECT runs.run_uuid, runs.name, latest_metrics.key, latest_metrics.value
FROM runs JOIN tags USING (run_uuid) JOIN latest_metrics USING (run_uuid)
WHERE tags.key = 'medtl.kind' AND tags.value = 'cell' AND runs.status = 'FINISHED'
AND latest_metrics.key NOT LIKE '%seconds' ORDER BY 2, 1, 3"""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class Command:
    """An entry point in a folder of its own: tracking store, Optuna storage, cache, and a log."""

    def __init__(self, folder: Path, job: str, asked: Mapping[str, object]) -> None:
        folder.mkdir()
        self.job = job
        self.log = folder / "log.txt"
        self._folder = folder
        self._asked = asked
        self._store = f"sqlite:///{folder / 'mlflow.db'}"
        self._seen: dict[object, object] = {}
        self._started = 0.0  # of this life, in milliseconds since 1970
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Begins it, or goes on with it, by the same command."""
        asked = [f"--{name}={value}" for name, value in self._asked.items()]
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
                [sys.executable, "-m", f"entrypoints.{self.job}", *asked],
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
            raise RuntimeError(f"{self.job} failed, status {status}:\n{tail}")
        return True

    def kill(self) -> str:
        """Kills it with all its processes; what it was at."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return self._standing()

    def is_done(self) -> bool:
        """Whether its run has ended, so that the same command again would be asked for another.

        A search and a study are known by their name, and answer that they are done.
        """
        named = self.job in ("tune", "compare")
        return not named and bool(self._rows("mlflow.db", FINISHED.format(self.job)))

    def lost(self) -> int:
        """Finished trials or cells that were there at an earlier look, and are not as they were."""
        now = self._finished()
        lost = sum(now.get(each) != value for each, value in self._seen.items())
        self._seen |= now
        return lost

    def runs(self) -> list[Run]:
        """All its MLflow runs, when it has ended."""
        client = MlflowClient(self._store)
        experiments = [each.experiment_id for each in client.search_experiments()]
        return list(client.search_runs(experiments, max_results=5000))

    def result(self) -> dict[str, object]:
        """What it came to, when it has ended, by names."""
        # a life that begins after the end has nothing left to do; the newest run comes first
        *_, run = (
            run
            for run in self.runs()
            if run.data.tags.get("medtl.kind") == self.job and run.info.status == "FINISHED"
        )
        scores = {
            name: value
            for name, value in run.data.metrics.items()
            if name.startswith("test_") or name == "best_valid_auroc" or name.endswith("cells")
        }
        # a trial that was killed as its parameters were drawn has a number, and nothing else
        return {
            "trials or cells": list(self._finished().values()),
            "scores": scores,
            "weights or answers": self._digests(),
            "registered": self._registered(),
        }

    def _registered(self) -> dict[str, tuple]:
        """How many versions each registered model has, and its aliases."""
        client = MlflowClient(self._store)
        return {
            model.name: (
                len(client.search_model_versions(f"name='{model.name}'")),
                dict(model.aliases),
            )
            for model in client.search_registered_models()
        }

    def _digests(self) -> Counter:
        """Of the weights of each registered model, and of what each finished cell answered."""
        client = MlflowClient(self._store)
        models = [
            client.get_model_version(model.name, "1").source.rpartition("/")[2]
            for model in client.search_registered_models()
        ]
        places = [f"{model}/**/model.safetensors" for model in models]
        if self.job == "compare":
            places += [f"{run}/**/probabilities.csv" for run in self._finished()]
        return Counter(
            hashlib.sha256(file.read_bytes()).hexdigest()
            for place in places
            for file in self._folder.glob(f"mlruns/**/{place}")
        )

    def _finished(self) -> dict[object, object]:
        """Finished trials by their numbers, or cells by their runs, and what they came to."""
        if self.job == "tune":
            return self._trials()
        cells: dict[object, object] = {}
        for run, name, metric, value in self._rows("mlflow.db", CELLS):
            cells[run] = (*cells.get(run, (name,)), (metric, value))
        return cells

    def _trials(self) -> dict[object, object]:
        if not self._rows("optuna.db", f"SELECT 1 FROM studies WHERE study_name = '{NAME}'"):
            return {}
        storage = f"sqlite:///{self._folder / 'optuna.db'}"
        study = optuna.load_study(study_name=NAME, storage=storage)
        return {
            each.number: (each.state.name, each.params, each.value, each.intermediate_values)
            for each in study.get_trials(deepcopy=False)
            if each.state in ENDED
        }

    def _standing(self) -> str:
        """What it was at when it was killed."""
        rows = self._rows("mlflow.db", RUNNING)
        kinds = {kind: run for kind, _, run in rows}
        # an earlier life's runs stand RUNNING too until the next has closed them
        newest = max((start for _, start, _ in rows), default=0)
        if self.is_done():
            return "at its end"
        if self.job not in kinds or newest < self._started:
            return "starting"
        if "promote" in kinds:
            return "registering"
        if "pretrain" in kinds and self.job != "pretrain":
            return "pretraining"
        if self.job == "tune" and len(self._trials()) >= self._asked["trials"]:
            return "refitting, evaluating"
        if self.job in ("tune", "compare"):
            inside = "trial" if self.job == "tune" else "cell"
            return f"in a {inside}" if inside in kinds else f"before or after a {inside}"
        ((epochs,),) = self._rows("mlflow.db", EPOCHS.format(kinds[self.job]))
        if epochs >= self._asked["epochs"]:
            return "evaluating, logging"
        return "training" if epochs else "before an epoch"

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
