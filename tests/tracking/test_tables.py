from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import sqlite3
import time

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError
from medtl.settings.training import TrainSettings
from medtl.tracking.runs import tracked_run
from medtl.tracking.store import make_tables


def tables(file) -> int:
    with contextlib.closing(sqlite3.connect(file)) as database:
        return len(database.execute("SELECT 1 FROM sqlite_master").fetchall())


def test_a_store_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    clinic = tmp_path / "clinic"
    clinic.mkdir()
    monkeypatch.chdir(clinic)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clinic / 'mlflow.db'}")
    maker = multiprocessing.get_context("fork").Process(target=make_tables)
    maker.start()
    half = []
    while not half or tables(half[0]) < 8:
        assert maker.is_alive()
        time.sleep(0.002)
        half = list(clinic.glob(".unfinished-*/mlflow.db"))
    maker.kill()
    maker.join()
    assert not (clinic / "mlflow.db").exists()

    make_tables()
    inode = (clinic / "mlflow.db").stat().st_ino
    with tracked_run("train", TrainSettings()) as run:
        assert run.info.experiment_id == "0"
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    artifacts = MlflowClient().get_experiment("0").artifact_location
    assert artifacts.removeprefix("file://") == str(clinic / "mlruns" / "0")
    make_tables()
    assert (clinic / "mlflow.db").stat().st_ino == inode, "one that is there is left alone"

    half = shutil.copy(clinic / "mlflow.db", tmp_path / "half.db")
    with contextlib.closing(sqlite3.connect(half)) as database:
        # as MLflow leaves it when it is killed between a step and its note of that
        database.executescript("DELETE FROM alembic_version; DROP TABLE webhooks;")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{half}")
    with (
        pytest.raises(MedtlError, match=r"does not open .* remove the file"),
        tracked_run("train", TrainSettings()),
    ):
        pass
