"""Searches of several workers on a real PostgreSQL, one of them killed, and of two commands."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import optuna
import pandas as pd
import psutil
import psycopg
import pytest
from mlflow.tracking import MlflowClient

from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.distributed.resources import gpus, shares
from medtl.errors import MedtlError, ParameterError
from medtl.settings.search import TuneSettings
from medtl.tracking.runs import embedded_storage
from medtl.tuning import storage as tuning_storage
from medtl.tuning import study as studies
from medtl.tuning.storage import open_store

ROOT = Path(__file__).parents[2]
QUICK = {
    "architecture": "small_resnet",
    "weights": "random",
    "image_size": 32,
    "augment": "none",
    "cutoffs": "layer3,head",
    "optimizers": "adam",
    "pruner": "none",
    "study": "many",
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> str:
    """The CSV of 36 phantom patients at 32 px, about 100 images."""
    folder = tmp_path_factory.mktemp("phantoms") / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=36, image_size=32)
    return str(folder / "labels.csv")


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


def kill_a_worker(killed: list[int]) -> None:
    """Kills the first process but this one that is in a trial, and has told of an epoch."""
    while not killed:
        time.sleep(0.02)
        trials = runs("trial")
        if "metrics.valid_loss" not in trials:
            continue
        for process in trials.loc[
            trials["metrics.valid_loss"].notna(), "tags.mlflow.medtl.process"
        ]:
            number = int(process.split()[1])
            if number != os.getpid():
                os.kill(number, signal.SIGKILL)
                killed.append(number)
                return


@pytest.mark.slow
def test_a_killed_worker_loses_no_trial(clinic, database, capsys):
    killed: list[int] = []
    thread = threading.Thread(target=kill_a_worker, args=(killed,), daemon=True)
    thread.start()
    # a trial takes long enough to be killed in
    asked = {"data": clinic, **QUICK, "epochs": 24, "patience": 24, "trials": 4}
    tune(TuneSettings(**asked, storage=database, workers=2))
    thread.join()
    (parent,) = runs("tune").to_dict("records")
    trials = runs("trial").set_index("run_id")
    assert parent["status"] == "FINISHED"
    assert set(trials["tags.mlflow.parentRunId"]) == {parent["run_id"]}
    assert sorted(trials["status"]) == ["FINISHED"] * 4 + ["KILLED"]
    (cut_off,) = trials[trials["status"] == "KILLED"].to_dict("records")
    again = trials.loc[cut_off["tags.medtl.successor"]]
    for name in ("cutoff", "optimizer", "lr"):
        assert again[f"params.{name}"] == cut_off[f"params.{name}"]
    processes = {int(each.split()[1]) for each in trials["tags.mlflow.medtl.process"]}
    assert killed[0] in processes
    assert os.getpid() not in processes
    study = optuna.load_study(study_name="many", storage=open_store(database).storage)
    assert len(studies.finished(study)) == 4
    assert len(study.trials) == 5
    assert len(MlflowClient().search_model_versions("name='medtl-clinic'")) == 1
    hidden = parent["params.storage"]
    assert hidden == database.replace("open-sesame", "***")
    settings = mlflow.artifacts.load_text(f"runs:/{parent['run_id']}/settings.json")
    assert "open-sesame" not in f"{settings} {parent} {capsys.readouterr()}"


@pytest.mark.slow
def test_two_commands_search_together_and_one_concludes(clinic, database):
    asked = {"data": clinic, **QUICK, "epochs": 2, "trials": 12, "storage": database}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    other = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.tune", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not prepared(database):
        time.sleep(0.05)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tune(TuneSettings(**asked))
    told = [printed.getvalue(), other.communicate()[0]]
    assert other.returncode == 0
    assert sum("registered" in each for each in told) == 1
    assert sum("result        run" in each for each in told) == 1
    commands, trials = runs("tune"), runs("trial")
    assert list(commands["status"]) == ["FINISHED", "FINISHED"]
    assert len(trials) == 12
    assert set(trials["tags.medtl.state"]) == {"complete"}
    assert sorted(map(int, trials["tags.medtl.trial"])) == list(range(12))
    assert set(trials["tags.mlflow.parentRunId"]) <= set(commands["run_id"])
    (joined,) = commands["tags.medtl.result"].dropna()
    assert joined in set(commands["run_id"])
    assert len(MlflowClient().search_model_versions("name='medtl-clinic'")) == 1
    with contextlib.redirect_stdout(printed):
        tune(TuneSettings(**asked))  # comes after the end
    assert len(runs("trial")) == 12
    assert len(MlflowClient().search_model_versions("name='medtl-clinic'")) == 1


@pytest.mark.slow
def test_a_leading_command_that_is_killed_is_followed_by_one_that_joined(
    clinic, database, monkeypatch
):
    opened, shared = [], tuning_storage.PostgresCoordinator

    def open_shared(url: str, worker: str) -> tuning_storage.PostgresCoordinator:
        opened.append(shared(url, worker))
        return opened[-1]

    monkeypatch.setattr(tuning_storage, "PostgresCoordinator", open_shared)
    asked = {"data": clinic, **QUICK, "epochs": 80, "patience": 80, "trials": 5}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    leader = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.tune", *options, f"--storage={database}",
         "--workers=2"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while runs("trial").empty:
        assert leader.poll() is None
        time.sleep(0.05)
    printed, before = io.StringIO(), {}

    def trials_of_others() -> pd.DataFrame:
        trials = runs("trial")
        return trials[~trials["tags.mlflow.medtl.process"].str.contains(f" {os.getpid()} ")]

    def kill_when_joined() -> None:
        while "joined" not in printed.getvalue():
            time.sleep(0.02)
        study = optuna.load_study(study_name="many", storage=opened[0].storage)
        while not (studies.finished(study) and "RUNNING" in set(trials_of_others()["status"])):
            time.sleep(0.02)
        leader.kill()
        leader.wait()
        opened[0].storage.grace_period = 2  # the minute of silence is not waited for
        before.update(runs("trial").set_index("run_id").to_dict("index"))

    thread = threading.Thread(target=kill_when_joined, daemon=True)
    thread.start()
    with contextlib.redirect_stdout(printed):
        tune(TuneSettings(**asked, storage=database))
    thread.join()
    workers = {int(each.split()[1]) for each in trials_of_others()["tags.mlflow.medtl.process"]}
    assert workers
    assert not any(map(psutil.pid_exists, workers)), "they ended with the leader"
    commands = runs("tune").set_index("status")
    assert set(commands.index) == {"KILLED", "FINISHED"}
    assert commands.loc["KILLED", "tags.medtl.successor"] == commands.loc["FINISHED", "run_id"]
    trials = runs("trial").set_index("run_id")
    finished = [each for each, run in before.items() if run["status"] == "FINISHED"]
    assert set(trials.loc[finished, "status"]) == {"FINISHED"}
    assert sorted(trials["status"]) == ["FINISHED"] * 5 + ["KILLED"] * (len(trials) - 5)
    cut_off = trials[trials["status"] == "KILLED"]
    assert 1 <= len(cut_off) <= 2
    again = trials.loc[cut_off["tags.medtl.successor"]]
    assert list(again["tags.medtl.cutoff"]) == list(cut_off["tags.medtl.cutoff"])
    logged = cut_off["params.lr"].notna().to_numpy()  # one may be killed before it logs any
    assert list(again["params.lr"][logged]) == list(cut_off["params.lr"][logged])
    assert len(MlflowClient().search_model_versions("name='medtl-clinic'")) == 1
    assert "registered" in printed.getvalue()


def prepared(database: str) -> bool:
    """Whether a command has begun to search in this database."""
    with contextlib.suppress(psycopg.Error), psycopg.connect(database) as connection:
        asked = "SELECT count(*) FROM study_user_attributes WHERE key = 'medtl.prepared'"
        return connection.execute(asked).fetchone()[0] > 0
    return False


def test_an_sqlite_study_that_another_process_searches_is_left_to_it(clinic):
    began = "import mlflow; from medtl.tracking.runs import *; print(mlflow.start_run(tags="
    began += "{OWNER_TAG: owner()}).info.run_id, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", began], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        run_id = other.stdout.readline().strip().decode()
        study = optuna.create_study(
            storage=embedded_storage(), study_name="many", direction="maximize"
        )
        study.set_user_attr(studies.RUN_ID, run_id)
        with pytest.raises(MedtlError, match=rf"run {run_id}.*storage=postgresql://"):
            tune(TuneSettings(data=clinic, **QUICK))
        other.kill()
    assert mlflow.get_run(run_id).info.status == "RUNNING"
    assert runs("trial").empty


@pytest.mark.parametrize("storage", ["", "sqlite:///optuna.db", "mysql://db/optuna"])
def test_several_workers_need_postgresql(storage):
    with pytest.raises(ParameterError, match=r"workers=2 .* storage=postgresql://USER@HOST"):
        TuneSettings(workers=2, storage=storage)


def test_a_password_that_no_url_can_hold_is_refused_unseen():
    with pytest.raises(ParameterError, match="%40") as refused:
        TuneSettings(storage="postgresql://me:se@cret@db/x")
    assert "cret" not in str(refused.value)


def test_each_worker_has_its_share_of_the_cores_or_a_gpu():
    assert {each["OMP_NUM_THREADS"] for each in shares(3, 7, [])} == {"2"}
    assert {each["OMP_NUM_THREADS"] for each in shares(9, 7, [])} == {"1"}
    assert all("CUDA_VISIBLE_DEVICES" not in each for each in shares(3, 7, []))
    assert [each["CUDA_VISIBLE_DEVICES"] for each in shares(3, 8, ["3", "5"])] == ["3", "5", "3"]
    assert gpus("cpu") == gpus("cuda:1") == []
