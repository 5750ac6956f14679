"""Exit status and the one line, as a user of the command line sees them."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import mlflow
import pytest
import sqlalchemy
from PIL import Image

from entrypoints.cli import STOPS, enter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an entry point in this process: its exit status and its last line on stderr."""

    def entered(entry_point: str, *arguments: str) -> tuple[int, str]:
        module = importlib.import_module(f"entrypoints.{entry_point}")
        monkeypatch.setattr("sys.argv", [entry_point, *arguments])
        with pytest.raises(SystemExit) as exited:
            enter(module.main)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return exited.value.code, error.strip().splitlines()[-1]

    return entered


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Lets this process hear Ctrl-C, and as it did before after the test."""
    before = {each: signal.getsignal(each) for each in (*STOPS, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def test_ctrl_c_waits_until_a_write_to_a_database_is_done(ctrl_c, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main"])
    done = []

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("interrupted")

    @click.command()
    def main() -> None:
        engine = sqlalchemy.create_engine("sqlite://")
        sqlalchemy.event.listen(engine, "before_cursor_execute", interrupt)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE runs (name TEXT)"))
        done.append("written")
        time.sleep(60)

    with pytest.raises(SystemExit) as exited:
        enter(main)
    assert exited.value.code == 1
    assert done == ["interrupted", "written"]
    assert "stopped; the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epochs", "many"], ["--epochs", "many", "integer"]),
        (["--optimizer", "adaam"], ["optimizer", "adaam", "adamw"]),
        (["--lr", "-1"], ["lr", "-1", "from 1e-08"]),
        (["--learning-rate", "1"], ["--learning-rate"]),
        (["--architecture", "resnet19"], ["architecture", "resnet19", "resnet18"]),
        (["--device", "tpu"], ["device", "tpu", "cuda"]),
        (["--data", "no/such/folder"], ["data", "no/such/folder"]),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(run, arguments, words):
    status, line = run("train", "--weights", "random", *arguments)
    assert status == 2, line
    for word in words:
        assert word in line


def test_a_hybrid_is_no_backbone(run):
    status, line = run("pretrain", "--transfer", "hybrid")
    assert status == 2
    assert "transfer=hybrid is not allowed: finetune" in line


def test_the_run_ends_failed_with_the_same_line_in_its_tag(run, monkeypatch):
    client = mlflow.MlflowClient()
    handed_over = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", handed_over)
    _, line = run("train", "--optimizer", "adaam")
    ended = client.get_run(handed_over)
    assert ended.info.status == "FAILED"
    assert line == f"medtl: {ended.data.tags['medtl.error']}"


def test_work_that_fails_is_one_line_and_status_one(run, tmp_path):
    for name in ("benign", "malignant"):
        folder = tmp_path / "skin" / name
        folder.mkdir(parents=True)
        for index in range(12):
            Image.new("L", (40, 40), index * 20 + len(name)).save(folder / f"{index}.png")
    (tmp_path / "skin" / "benign" / "3.png").write_bytes(b"not an image")
    status, line = run("train", "--data", str(tmp_path / "skin"), "--weights", "random")
    assert status == 1
    assert "3.png" in line
    assert "unreadable=skip" in line


def test_of_several_processes_the_first_refuses_what_is_work_for_one(run, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    status, line = run("tune")
    assert status == 1
    assert "workers" in line
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("sys.argv", ["tune"])
    with pytest.raises(SystemExit) as exited:
        enter(importlib.import_module("entrypoints.tune").main)
    assert exited.value.code == 0
    assert capsys.readouterr() == ("", "")


def test_help_is_quick_and_names_every_parameter_and_its_default():
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "entrypoints.tune", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--image-size", "--lr-low", "--cutoffs", "phantoms"):
        assert option in process.stdout
    assert "torch" not in process.stderr, "what takes seconds is imported when work begins"
