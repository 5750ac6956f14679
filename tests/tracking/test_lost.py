"""A real tracking server, killed in the midst of a training: waited for, or said to be lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.train import train
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import MedtlError
from medtl.settings.evaluation import PromoteSettings
from medtl.settings.training import TrainSettings
from medtl.tracking.artifacts import log_table
from medtl.tracking.runs import tracked_run

EPOCHS = 60


class Server:
    """A tracking server in a folder, with its store in SQLite, that can be killed and begun."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.store = f"sqlite:///{folder / 'server.db'}"
        self._folder = folder
        self._process: subprocess.Popen | None = None

    def begin(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(self._port), "--workers", "1",
             "--backend-store-uri", self.store,
             "--artifacts-destination", str(self._folder / "artifacts")],
            cwd=self._folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def wait(self) -> None:
        while True:
            assert self._process.poll() is None, "the server ended by itself"
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5)
                return
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def kill_in_training(self, number: int, begin_again: bool) -> threading.Thread:
        """Kills it, from another thread, when the training of that number is in its midst."""

        def is_in_its_midst() -> bool:
            runs = MlflowClient(self.store).search_runs(["0"])
            return len(runs) == number and any(
                metric.key == "train_loss" and metric.step >= 5
                for metric in runs[0].data._metric_objs
            )

        def wait_and_kill() -> None:
            while not is_in_its_midst():
                time.sleep(0.05)
            self.kill()
            if begin_again:
                self.begin()

        thread = threading.Thread(target=wait_and_kill, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def server(own_folders: None, tmp_path: Path, empty_store: Path) -> Iterator[Server]:
    shutil.copy(empty_store, tmp_path / "server.db")
    made = Server(tmp_path)
    made.begin()
    yield made
    made.kill()


@pytest.mark.slow
def test_a_server_that_is_gone_is_waited_for_and_one_that_stays_away_is_one_line(
    server: Server, tmp_path: Path, monkeypatch, capsys
):
    folder = tmp_path / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=24, image_size=32)
    settings = TrainSettings(
        data=str(folder / "labels.csv"),
        architecture="small_resnet",
        weights="random",
        image_size=32,
        augment="none",
        epochs=EPOCHS,
        patience=EPOCHS,
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    server.wait()

    killing = server.kill_in_training(1, begin_again=False)
    with pytest.raises(MedtlError, match=r"was lost .* the same command goes on") as lost:
        train(settings)
    killing.join()
    assert "\n" not in str(lost.value)
    assert server.url in str(lost.value)
    assert mlflow.active_run() is None

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    server.begin()
    server.wait()
    killing = server.kill_in_training(2, begin_again=True)
    train(settings)
    killing.join()
    told = notes(capsys.readouterr().err)
    assert set(told) == {"note: the tracking server does not answer; waiting for it"}
    assert len(told) < 5, "one a minute"
    (run, first) = MlflowClient(server.store).search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert "test_auroc" in run.data.metrics
    history = MlflowClient(server.store).get_metric_history(run.info.run_id, "train_loss")
    assert {metric.step for metric in history} == set(range(1, EPOCHS + 1))
    assert first.data.metrics["train_loss"], "what was logged before is still there"


def test_a_full_database_is_one_line(small_disk, empty_store: Path, monkeypatch, capsys):
    place = small_disk(empty_store.stat().st_size // 1024 + 60) / "mlflow.db"
    shutil.copy(empty_store, place)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}")

    def fill() -> None:
        with tracked_run("promote", PromoteSettings()):
            for number in range(1000):
                mlflow.set_tag(f"filler {number}", "x" * 4000)

    with pytest.raises(MedtlError, match=r"was lost \(database or disk is full\); when") as full:
        fill()
    assert "\n" not in str(full.value)
    assert "Traceback" not in capsys.readouterr().err


def test_a_full_folder_of_temporary_files_is_named_and_not_the_artifacts(small_disk, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk(64)))
    with (
        pytest.raises(MedtlError, match=r"No space left.*goes on") as full,
        tracked_run("promote", PromoteSettings()) as run,
    ):
        log_table(pd.DataFrame({"text": ["x" * 100_000]}), "data/table.csv")
    assert f"temporary files in {tempfile.gettempdir()} (set TMPDIR)" in str(full.value)
    assert run.info.artifact_uri not in str(full.value)


def notes(printed: str) -> list[str]:
    """The lines about the server that MLflow, urllib3 and this project have printed."""
    told = ("tracking server", "Retrying", "HTTPConnectionPool", "Traceback")
    return [line for line in printed.splitlines() if any(each in line for each in told)]
