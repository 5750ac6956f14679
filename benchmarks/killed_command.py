"""A command in its own folder that is started, killed and inspected from outside."""

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
# results of cells; times differ between runs and are left out
CELLS = """SELECT runs.run_uuid, runs.name, latest_metrics.key, latest_metrics.value
FROM runs JOIN tags USING (run_uuid) JOIN latest_metrics USING (run_uuid)
WHERE tags.key = 'medtl.kind' AND tags.value = 'cell' AND runs.status = 'FINISHED'
AND latest_metrics.key NOT LIKE '%seconds' ORDER BY 2, 1, 3"""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class Command:
    """An entry point in its own folder, with tracking store, Optuna storage, cache and log."""

    def __init__(self, folder: Path, job: str, asked: Mapping[str, object]) -> None:
        folder.mkdir()
        self.job = job
        self.log = folder / "log.txt"
        self._folder = folder
        self._asked = asked
        self._store = f"sqlite:///{folder / 'mlflow.db'}"
        self._seen: dict[object, object] = {}
        self._started = 0.0  # of the present process, in milliseconds since 1970
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts or resumes it by the same command."""
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
        """Waits for its end; returns False after `within` seconds without one.

        Raises:
            RuntimeError: it failed by itself.
        """
        try:
            status = self._running().wait(within)
        except subprocess.TimeoutExpired:
            return False
        if status != 0:
            tail = self.log.read_text()[-3000:]
            raise RuntimeError(f"{self.job} failed, status {status}:\n{tail}")
        return True

    def kill(self) -> str:
        """Kills it with all its processes; returns the step that was interrupted."""
        process = self._running()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return self._interrupted_step()

    def is_done(self) -> bool:
        """Returns whether its run is finished, so that the same command would start a second one.

        Always False for a search and a study: they have a name, and the same command returns the
        finished result.
        """
        named = self.job in ("tune", "compare")
        return not named and bool(self._rows("mlflow.db", FINISHED.format(self.job)))

    def lost(self) -> int:
        """Counts finished trials or cells that are missing or changed since the last call."""
        now = self._finished()
        lost = sum(now.get(each) != value for each, value in self._seen.items())
        self._seen |= now
        return lost

    def runs(self) -> list[Run]:
        """Returns all its MLflow runs."""
        client = MlflowClient(self._store)
        experiments = [each.experiment_id for each in client.search_experiments()]
        return list(client.search_runs(experiments, max_results=5000))

    def result(self) -> dict[str, object]:
        """Returns the results of the finished command by name."""
        # a process started after the end adds a run without work; the newest run comes first
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
        # a trial killed while its parameters were drawn has a number and nothing else
        return {
            "trials or cells": list(self._finished().values()),
            "scores": scores,
            "weights or answers": self._digests(),
            "registered": self._registered(),
        }

    def _running(self) -> subprocess.Popen:
        assert self._process is not None, "the command was not started"
        return self._process

    def _registered(self) -> dict[str, tuple]:
        """Returns the number of versions and the aliases of each registered model."""
        client = MlflowClient(self._store)
        return {
            model.name: (
                len(client.search_model_versions(f"name='{model.name}'")),
                dict(model.aliases),
            )
            for model in client.search_registered_models()
        }

    def _digests(self) -> Counter:
        """Hashes the weights of registered models and the probabilities of finished cells."""
        client = MlflowClient(self._store)
        models = [
            str(client.get_model_version(model.name, "1").source).rpartition("/")[2]
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
        """Returns finished trials by number, or finished cells by run, with their results."""
        if self.job == "tune":
            return self._trials()
        cells: dict[object, tuple[object, ...]] = {}
        for run, name, metric, value in self._rows("mlflow.db", CELLS):
            cells[run] = (*cells.get(run, (name,)), (metric, value))
        return dict(cells)

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

    def _interrupted_step(self) -> str:
        """Returns the step that was interrupted."""
        rows = self._rows("mlflow.db", RUNNING)
        kinds = {kind: run for kind, _, run in rows}
        # runs of an earlier process have status RUNNING until the next process closes them
        newest = max((start for _, start, _ in rows), default=0)
        if self.is_done():
            return "at its end"
        if self.job not in kinds or newest < self._started:
            return "starting"
        if "promote" in kinds:
            return "registering"
        if "pretrain" in kinds and self.job != "pretrain":
            return "pretraining"
        if self.job == "tune" and len(self._trials()) >= int(str(self._asked["trials"])):
            return "refitting, evaluating"
        if self.job in ("tune", "compare"):
            inside = "trial" if self.job == "tune" else "cell"
            return f"in a {inside}" if inside in kinds else f"before or after a {inside}"
        ((epochs,),) = self._rows("mlflow.db", EPOCHS.format(kinds[self.job]))
        if epochs >= self._asked["epochs"]:
            return "evaluating, logging"
        return "training" if epochs else "before an epoch"

    def _rows(self, database: str, query: str) -> list[tuple]:
        """Queries a database without creating or repairing anything in it."""
        file = self._folder / database
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(file)) as connection:
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:  # killed before the table was created
                return []
