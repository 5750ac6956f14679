"""Training, registration and serving of every network of the papers.

Each step is a process as a user starts it: `python -m entrypoints.train`, then `mlflow models
serve`. Weights are random and images few: this measures cost, not scores.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow

from benchmarks.served import check_answer, environment_of, last_line, serving
from medtl.data.manifest import read_table
from medtl.errors import MedtlError
from medtl.networks.registry import build
from medtl.pipeline.setup import plain
from medtl.serving.handler import columns

NETWORKS = (
    "resnet18", "vgg11", "alexnet", "mobilenet_v2", "mobilenet_v3_large", "vgg16", "vgg19",
    "inception_v3", "resnet50", "resnet101", "densenet121", "parallel_cnn",
    "dual:densenet121+resnet101", "transmed",
)  # fmt: skip
PATIENTS = 20  # of the phantoms that are written for this: about 60 images
ANSWERS = 5  # whose median time is reported
EXPERIMENT = "papers"
ROOT = Path(__file__).parent.parent
HEADING = (
    f"{'network':<28}{'parameters':>11}{'training':>12}{'until served':>14}{'an answer':>14}  right"
)


@dataclass(frozen=True)
class NetworkCost:
    """Cost of one network from training to the served answer."""

    network: str
    parameters: float  # millions
    training: float  # seconds of the process: data, an epoch, test scores, model, registry
    starting: float  # seconds until the server answers its first ping
    answering: float  # milliseconds of an answer to one image

    def __str__(self) -> str:
        return (
            f"{self.network:<28}{self.parameters:>9.1f} M{self.training:>10.1f} s"
            f"{self.starting:>12.1f} s{self.answering:>11.0f} ms  yes"
        )


class TrainAndServe:
    """Trains, registers and serves networks in one tracking store."""

    def __init__(self, folder: Path, data: str, image_size: int) -> None:
        self._folder, self._data, self._image_size = folder, data, image_size
        store = f"sqlite:///{folder / 'mlflow.db'}"
        # creates the tables of the store, whose seconds would count for the first network
        artifacts = (folder / "artifacts").as_uri()
        mlflow.MlflowClient(store).create_experiment(EXPERIMENT, artifact_location=artifacts)
        self.environment = environment_of(folder) | {
            "MLFLOW_TRACKING_URI": store,
            "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
            "MEDTL_CACHE": str(folder / "cache"),
        }

    def measure(self, network: str) -> NetworkCost:
        """Trains and serves one network, and times its answers.

        Raises:
            MedtlError: training, server or answer failed.
        """
        name = plain(network)
        training = self.train(network, name)
        table = read_table(self._data)
        names = columns(table.modalities)
        first = [file.read_bytes() for file in table.files()[: len(names)] if file]
        files = dict(zip(names, first, strict=True))
        with serving(f"models:/{name}@champion", self._folder / name, self.environment) as server:
            check_answer(*server.ask(files, explain=True), table.classes, explained=True)
            times = []
            for _ in range(ANSWERS):
                began = time.perf_counter()
                answer = server.ask(files)
                times.append(time.perf_counter() - began)
                check_answer(*answer, table.classes, explained=False)
        built = build(network, len(table.classes), self._image_size, 0, modalities=len(names))
        parameters = sum(parameter.numel() for parameter in built.parameters()) / 1e6
        median = sorted(times)[ANSWERS // 2]
        return NetworkCost(network, parameters, training, server.starting, 1000 * median)

    def train(self, network: str, name: str) -> float:
        """Trains a network for one epoch and registers it under a name; returns the seconds.

        Raises:
            MedtlError: training failed; the message has its last line.
        """
        options = {
            "data": self._data, "architecture": network, "weights": "random", "cutoff": "all",
            "epochs": 1, "lr": 1e-4, "image-size": self._image_size, "model-name": name,
        }  # fmt: skip
        command = [sys.executable, "-m", "entrypoints.train"]
        command += [f"--{option}={value}" for option, value in options.items()]
        began = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            raise MedtlError(f"training: {last_line(done.stderr)}")
        return time.perf_counter() - began
