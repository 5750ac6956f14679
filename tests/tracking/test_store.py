"""A real tracking server with logins on a real PostgreSQL: who may do what, and who is told no."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import psycopg
import pytest
from mlflow.server.auth.client import AuthServiceClient
from mlflow.tracking import MlflowClient

from medtl.commands.promote import promote
from medtl.commands.train import train
from medtl.errors import MedtlError
from medtl.settings.evaluation import PromoteSettings
from medtl.settings.training import TrainSettings
from medtl.tracking import alias_lock
from medtl.tracking.registry import REIGNS_TAG, champion_version
from medtl.tracking.runs import ERROR_TAG, hide_passwords, tracked_run
from medtl.tracking.store import check_login, check_may_change

NAME = "medtl-phantoms"
PASSWORD = "correct-horse-battery"
READER = "ada"
OF_ANOTHER = "medtl-wards"

# Two of these, each with a lock file of its own as on machines of their own.
PROMOTING = """
import sys
from medtl.tracking.registry import promote_version

name, *versions = sys.argv[1:]
for version in versions:
    promote_version(name, int(version))
"""


@pytest.fixture(scope="module")
def server(postgresql: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with basic-auth on; its first user is admin."""
    folder = tmp_path_factory.mktemp("server")
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE tracking")
    (folder / "basic_auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nauth_cache_ttl_seconds = 60\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder / 'users.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--port", str(port),
         "--workers", "1", "--allowed-hosts", f"127.0.0.1:{port}",
         "--backend-store-uri", f"{postgresql}/tracking",
         "--artifacts-destination", str(folder / "artifacts")],
        cwd=folder,
        env={
            **os.environ,
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None and not answers(url):
            time.sleep(0.1)
        assert process.returncode is None
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture
def logged_in(server: str, own_folders: None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return server


@pytest.fixture
def reader(logged_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logged in as ada, who may read all, and write in an experiment of her own."""
    AuthServiceClient(logged_in).create_user(READER, PASSWORD)
    versions(OF_ANOTHER, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", READER)
    MlflowClient().create_experiment(READER)


def versions(name: str, count: int) -> None:
    client = MlflowClient()
    client.create_registered_model(name)
    run = client.create_run("0").info
    for _ in range(count):
        client.create_model_version(name, f"{run.artifact_uri}/model", run.run_id)


@pytest.mark.slow
def test_two_machines_that_promote_at_once_lose_no_champion(logged_in: str, tmp_path: Path):
    versions(NAME, 4)
    orders = (["1", "2"] * 2, ["3", "4"] * 2)
    promoting = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTING, NAME, *order],
            env={**os.environ, "MEDTL_CACHE": str(tmp_path / f"machine {place}")},
        )
        for place, order in enumerate(orders)
    ]
    assert [process.wait() for process in promoting] == [0, 0]
    model = MlflowClient().get_registered_model(NAME)
    reigns = model.tags[REIGNS_TAG].split()
    for order in orders:
        assert [version for version in reigns if version in order] == order
    assert champion_version(NAME) == int(reigns[-1])
    assert not any(tag.startswith(alias_lock.CLAIM) for tag in model.tags)

    # a claim that a killed process left keeps nobody for ever
    MlflowClient().set_registered_model_tag(NAME, f"{alias_lock.CLAIM}dead", "elsewhere 1 0.00")
    with (
        pytest.raises(MedtlError, match=r"elsewhere 1 .*held the lock"),
        alias_lock.alias_lock(NAME, 0.1),
    ):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alias_lock, "DEAD", 0.5)
        with alias_lock.alias_lock(NAME):
            pass
    tags = MlflowClient().get_registered_model(NAME).tags
    assert not any(tag.startswith(alias_lock.CLAIM) for tag in tags)


def test_who_may_only_read_is_told_before_the_work(reader: None, monkeypatch):
    with pytest.raises(MedtlError, match=r"not let ada write in experiment Default: .* EDIT"):
        train(TrainSettings())
    assert MlflowClient().search_runs(["0"], "tags.`medtl.kind` = 'train'") == []

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", READER)
    refused = r"ada may not change the registered model medtl-wards .*READ.* EDIT"
    with pytest.raises(MedtlError, match=refused):
        train(TrainSettings(model_name=OF_ANOTHER))
    with pytest.raises(MedtlError, match=refused):
        promote(PromoteSettings(model_name=OF_ANOTHER, version=1))
    experiment = MlflowClient().get_experiment_by_name(READER).experiment_id
    runs = MlflowClient().search_runs([experiment])
    assert {run.data.tags["medtl.kind"] for run in runs} == {"train", "promote"}
    assert all(run.info.status == "FAILED" for run in runs)
    assert all(OF_ANOTHER in run.data.tags[ERROR_TAG] for run in runs)

    check_may_change("of nobody yet")
    MlflowClient().create_registered_model("of ada")
    check_may_change("of ada")

    # what is refused later stands in the run as well
    with (
        pytest.raises(MedtlError, match="not let ada change this registered model"),
        tracked_run("promote", PromoteSettings()) as run,
    ):
        MlflowClient().set_registered_model_alias(OF_ANOTHER, "champion", "1")
    run = mlflow.get_run(run.info.run_id)
    assert run.info.status == "FAILED"
    assert "EDIT" in run.data.tags[ERROR_TAG]


def test_a_server_that_does_not_know_its_address_is_one_line(logged_in: str, monkeypatch):
    other = logged_in.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    with pytest.raises(MedtlError, match=f"--allowed-hosts {other.removeprefix('http://')}"):
        check_login()


def test_a_wrong_password_is_one_line_that_says_what_to_set(logged_in: str, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with (
        pytest.raises(MedtlError, match="set MLFLOW_TRACKING_USERNAME and") as refused,
        tracked_run("promote", PromoteSettings()),
    ):
        pass
    assert "\n" not in str(refused.value)
    assert "wrong" not in str(refused.value)


def test_a_password_that_stays_in_the_parameters_of_a_server_is_said(logged_in: str, capsys):
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "storage", "postgresql://me:secret@db/x")
    hide_passwords(client.get_run(run_id))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"the password in storage of run {run_id} was, and stays, written down" in line
    assert "secret" not in line


def test_a_password_is_hidden_where_the_store_lies_open(capsys):
    client = MlflowClient()
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "storage", "postgresql://me:secret@db/x")
    client.log_param(run_id, "study", "mine")
    hide_passwords(client.get_run(run_id))
    params = mlflow.get_run(run_id).data.params
    assert params == {"storage": "postgresql://me:***@db/x", "study": "mine"}
    assert "PGPASSWORD" in capsys.readouterr().err
