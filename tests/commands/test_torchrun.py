"""`train` in two processes that torchrun starts: one run, and what one process comes to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file
from torch.testing import assert_close

from medtl.commands.train import train
from medtl.settings.training import TrainSettings

ROOT = Path(__file__).parents[2]
ASKED = {
    "architecture": "small_resnet",
    "weights": "random",
    "image_size": 48,
    "cutoff": "layer4",
    "epochs": 2,
    "precision": "float32",
}


def torchrun(entry_point: str, **settings: object) -> subprocess.CompletedProcess:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "-m", f"entrypoints.{entry_point}", *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip


def weights(run_id: str) -> dict:
    (logged,) = mlflow.search_logged_models(
        filter_string=f"source_run_id = '{run_id}'", output_format="list"
    )
    folder = Path(mlflow.artifacts.download_artifacts(logged.artifact_location))
    (file,) = folder.rglob("model.safetensors")
    return load_file(file)


@pytest.mark.slow
def test_two_processes_come_to_what_one_does_in_one_run(small_phantoms):
    done = torchrun("train", data=small_phantoms, **ASKED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test scores") == 1
    (together,) = mlflow.search_runs(output_format="list")
    assert together.data.tags["medtl.processes"] == "2"
    train(TrainSettings(data=str(small_phantoms), **ASKED))
    (alone,) = (
        run
        for run in mlflow.search_runs(output_format="list")
        if run.info.run_id != together.info.run_id
    )
    client = MlflowClient()
    for name in ("train_loss", "valid_loss"):
        curves = [
            [each.value for each in client.get_metric_history(run.info.run_id, name)]
            for run in (together, alone)
        ]
        assert len(curves[0]) == 2
        assert curves[0] == pytest.approx(curves[1], abs=1e-4)
    gains = [name for name in alone.data.metrics if re.fullmatch(r"baseline.*_gain", name)]
    assert len(gains) == 3
    for name in gains:
        assert together.data.metrics[name] == pytest.approx(alone.data.metrics[name], abs=1e-3)
    scores = [name for name in alone.data.metrics if name.startswith("test_")]
    assert len(scores) >= 30
    for name in scores:
        assert together.data.metrics[name] == pytest.approx(alone.data.metrics[name], abs=1e-3)
    assert_close(*(weights(run.info.run_id) for run in (together, alone)), rtol=1e-3, atol=1e-4)
