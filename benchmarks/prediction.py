"""Images a second of `predict`, beside a loop that decodes a batch and then answers it.

Both have the same model, images and threads, and run in one process, one after the other.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import mlflow
import numpy as np
import torch

from benchmarks.papers import TrainAndServe
from medtl.commands.predict import predict
from medtl.data.image_files import images_below
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.imaging.pixels import UnreadableImage
from medtl.pipeline.predictions import CHUNK, pass_size
from medtl.serving.handler import as_one_array
from medtl.settings.prediction import PredictSettings
from medtl.tracking.logged_model import load_served

IMAGES_A_PATIENT = 3  # on average


@click.command("predict")
@click.option("--model", default="", help="MLflow URI; empty trains a small one")
@click.option("--data", default="", help="folder of images; empty draws phantoms")
@click.option("--images", default=300, help="phantoms to draw, about")
@click.option("--repeats", default=3, help="of each, the fastest of which counts")
def prediction(model: str, data: str, images: int, repeats: int) -> None:
    """Measures `predict` beside a loop in one process."""
    with tempfile.TemporaryDirectory() as root, contextlib.chdir(root):
        for line in measure(Path(root), model, data, images, repeats):
            print(line, flush=True)


def measure(root: Path, model: str, data: str, images: int, repeats: int) -> Iterator[str]:
    """Yields the lines of the report."""
    if not data:
        drawn = root / "images"
        drawn.mkdir()
        write_chest_phantoms(drawn, seed=7, patients=-(-images // IMAGES_A_PATIENT))
        data = str(drawn)
    if not model:
        servers = TrainAndServe(root, str(Path(data) / "labels.csv"), image_size=96)
        servers.train("small_resnet", "predicted")
        mlflow.set_tracking_uri(servers.environment["MLFLOW_TRACKING_URI"])
        model = "models:/predicted@champion"
    files = list(images_below(Path(data)))
    loops, commands = [], []
    for repeat in range(repeats):
        loops.append(loop_seconds(model, files))
        commands.append(predict_seconds(model, data, root / f"{repeat}.csv"))
    yield f"{len(files)} images, {model}, {torch.get_num_threads()} threads"
    for name, seconds in (("loop in one process", loops), ("predict", commands)):
        yield f"{name:<22}{min(seconds):8.2f} s{len(files) / min(seconds):8.1f} images a second"
    yield f"{'ratio of the seconds':<22}{min(commands) / min(loops):8.2f}"


def loop_seconds(model: str, files: list[Path]) -> float:
    """Returns the seconds of a loop of decoding and `Predictor.answer`, after a first pass."""
    predictor = load_served(model).bundle
    most = pass_size(predictor.image_size, torch.device("cpu"))
    rendering = predictor.preprocessing.rendering
    began = time.perf_counter()
    for start in range(0, len(files), CHUNK):
        decoded: list[np.ndarray] = []
        for file in files[start : start + CHUNK]:
            with contextlib.suppress(UnreadableImage):
                decoded.append(rendering.of_file(file.read_bytes()))
        for place in range(0, len(decoded), most):
            predictor.answer(as_one_array(decoded[place : place + most]))
    return time.perf_counter() - began


def predict_seconds(model: str, data: str, output: Path) -> float:
    """Returns the seconds in which `predict` answers all images, its run and model aside."""
    settings = PredictSettings(data=data, model=model, output=str(output))
    with contextlib.redirect_stdout(io.StringIO()):
        predict(settings)
    run = mlflow.last_active_run()
    assert run is not None
    return run.data.metrics["images"] / run.data.metrics["images_per_second"]
