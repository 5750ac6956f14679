"""Ctrl-C, and what a cluster's scheduler sends: an end that is clean, and says how to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
LONG = {
    "architecture": "shufflenet_v2_x0_5",
    "weights": "random",
    "image_size": 64,
    "epochs": 5000,
    "patience": 5000,
    "views": 1,
}


def trainings() -> list[Run]:
    return mlflow.search_runs(filter_string="tags.`medtl.kind` = 'train'", output_format="list")


def heard() -> None:
    """Lets a new process hear Ctrl-C, also where these tests run in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_training_that_is_stopped_ends_killed_and_says_how_to_go_on(small_phantoms, sent):
    asked = [f"--{name.replace('_', '-')}={value}" for name, value in LONG.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "entrypoints.train", f"--data={small_phantoms}", *asked],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,
    )
    while not any("train_loss" in run.data.metrics for run in trainings()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(sent)
    time.sleep(0.02)
    process.send_signal(sent)  # who is impatient does not leave the run as it is
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.splitlines()[-1] == "medtl: stopped; the same command goes on from here"
    assert "Traceback" not in error
    (run,) = trainings()
    assert run.info.status == "KILLED"
    assert run.data.tags["medtl.error"] == "stopped; the same command goes on from here"
