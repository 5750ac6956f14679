"""The figures of the documentation: `python -m benchmarks COMMAND --data LABELS.csv`.

The plain loop, the Lightning loop and medtl run in turn, trial by trial, each in its own process,
on the same images. `papers` needs no data and measures medtl alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click
import mlflow

from benchmarks.backbone import backbone
from benchmarks.copies import copies
from benchmarks.coverage import coverage
from benchmarks.decoding import decoding
from benchmarks.ensemble import ensemble
from benchmarks.flipped_labels import flipped_labels
from benchmarks.fold_coverage import fold_coverage
from benchmarks.folds import folds
from benchmarks.fuzz import fuzz
from benchmarks.gate import gate
from benchmarks.gpu import gpu
from benchmarks.head_views import head_views
from benchmarks.hostile_load import beside
from benchmarks.in_domain import in_domain
from benchmarks.kills import JOBS, WRONG, kill_and_compare
from benchmarks.memory import memory
from benchmarks.papers import HEADING, NETWORKS, PATIENTS, TrainAndServe
from benchmarks.prediction import prediction
from benchmarks.prediction_sets import prediction_sets
from benchmarks.scores import PRECISIONS, RECIPES, VIEWS, Way, compare_ways
from benchmarks.search import search
from benchmarks.served import environment_of
from benchmarks.serving import example_files, measure
from benchmarks.side_process import Side
from benchmarks.subset import subset_of
from benchmarks.ten_trials import trials
from benchmarks.toolbox import toolbox
from benchmarks.trials import LATE, Trial, many
from medtl.data.sources.phantoms.datasets import write_chest_phantoms

DEEP_CUT = Trial("features.denseblock4.denselayer16.conv2", "adam", 1e-3)

data_option = click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="CSV with the columns path, label, patient (and split: only train is used).",
)


@click.group()
def benchmarks() -> None:
    """Measures the cost of medtl beside a plain PyTorch loop."""


benchmarks.add_command(backbone)
benchmarks.add_command(copies)
benchmarks.add_command(coverage)
benchmarks.add_command(decoding)
benchmarks.add_command(ensemble)
benchmarks.add_command(flipped_labels)
benchmarks.add_command(fold_coverage)
benchmarks.add_command(folds)
benchmarks.add_command(fuzz)
benchmarks.add_command(gate)
benchmarks.add_command(gpu)
benchmarks.add_command(head_views)
benchmarks.add_command(in_domain)
benchmarks.add_command(memory)
benchmarks.add_command(prediction)
benchmarks.add_command(prediction_sets)
benchmarks.add_command(search)
benchmarks.add_command(trials)
benchmarks.add_command(toolbox)


@benchmarks.command("deep-cut")
@data_option
@click.option("--images", default=300, help="training images")
@click.option("--epochs", default=2, help="epochs a trial")
def deep_cut(data: Path, images: int, epochs: int) -> None:
    """Times a trial after the first: DenseNet-121 trained from its last convolution on."""
    # the time does not depend on the weights, so none are downloaded
    settings = {"architecture": "densenet121", "weights": "random"}
    with subset_of(data, images) as (folder, cache):
        with Side("plain", cache / "none", folder=str(folder), **settings) as one:
            plain = one.run(DEEP_CUT, epochs)
        with Side("medtl", cache, folder=str(folder), **settings) as other:
            ready = other.prepare()
            first = other.run(DEEP_CUT, epochs)
            second = other.run(DEEP_CUT, epochs)
            disk = other.disk_gb()
    each = 1000 / images / epochs
    print(f"plain loop             {plain.total * each:8.2f} ms an image and epoch")
    print(f"medtl, a later trial   {second.total * each:8.2f} ms an image and epoch")
    print(f"                       {plain.total / second.total:8.0f} times")
    print(
        f"medtl, decoding and the first trial: {ready + first.total:.1f} s, {disk:.2f} GB on disk"
    )


@benchmarks.command()
@data_option
@click.option("--epochs", default=1, help="epochs a trial")
def growth(data: Path, epochs: int) -> None:
    """Measures cost by number of images and of trials, with cut-offs at features.11 or later.

    Images beyond those of the CSV are shifted copies.
    """
    settings = {"architecture": "mobilenet_v2", "weights": "imagenet"}
    print(f"{'images':>7}{'trials':>7}{'seconds':>9}{'s a trial':>11}{'memory':>9}{'disk':>9}")
    for images, count in ((300, 10), (1000, 10), (3000, 10), (300, 30), (300, 100)):
        with (
            subset_of(data, images) as (folder, cache),
            Side("medtl", cache, folder=str(folder), **settings) as side,
        ):
            seconds = side.prepare()
            side.expect([trial.cutoff for trial in LATE])
            seconds += sum(side.run(trial, epochs).total for trial in many(LATE, count))
            print(
                f"{images:>7}{count:>7}{seconds:>9.0f}{seconds / count:>11.2f}"
                f"{side.peak_gb():>6.2f} GB{side.disk_gb():>6.2f} GB",
                flush=True,
            )


@benchmarks.command()
@data_option
@click.option("--images", default=600, help="training images")
@click.option("--epochs", default=8, help="epochs a training")
@click.option("--seeds", default=3, help="trainings a row")
def views(data: Path, images: int, epochs: int, seeds: int) -> None:
    """Compares scores of cached views and fresh augmentation: MobileNetV2 from features.17 on."""
    _print_ways(data, images, VIEWS, "features.17", epochs, seeds)


@benchmarks.command()
@data_option
@click.option("--images", default=300, help="training images")
@click.option("--epochs", default=6, help="epochs a training")
@click.option("--seeds", default=2, help="trainings a row")
def precision(data: Path, images: int, epochs: int, seeds: int) -> None:
    """Compares scores of bf16 and float32: MobileNetV2 from features.18 on."""
    _print_ways(data, images, PRECISIONS, "features.18", epochs, seeds)


@benchmarks.command()
@data_option
@click.option("--images", default=300, help="training images")
@click.option("--epochs", default=0, help="epochs a training; 0 for the budget of the cut-off")
@click.option("--seeds", default=3, help="trainings a row")
@click.option("--size", default=112, help="side of the images in pixels")
@click.option("--cutoff", default="all", help="the first layer that is trained")
def recipes(data: Path, images: int, epochs: int, seeds: int, size: int, cutoff: str) -> None:
    """Compares the default settings of fine-tuning with changes of one setting: MobileNetV2."""
    _print_ways(data, images, RECIPES, cutoff, epochs, seeds, size)


@benchmarks.command()
@click.option("--only", multiple=True, help="this architecture, not all; may be given repeatedly")
@click.option("--data", default="", help="as of train; by default a few phantoms")
@click.option("--image-size", default=128, help="pixels; with fewer a dual has no heat map")
def papers(only: tuple[str, ...], data: str, image_size: int) -> None:
    """Trains each network of the papers for one epoch, registers and serves it.

    Exit status 1 if one fails; the others are still run.
    """
    failed = False
    with tempfile.TemporaryDirectory() as root:
        images = Path(root, "images")
        images.mkdir()
        if not data:
            write_chest_phantoms(images, patients=PATIENTS, image_size=image_size)
        servers = TrainAndServe(Path(root), data or str(images / "labels.csv"), image_size)
        print(HEADING)
        for network in only or NETWORKS:
            try:
                print(servers.measure(network), flush=True)
            except Exception as error:  # a failed network must not stop the others
                failed = True
                reason = " ".join(str(error).split())
                print(f"{network:<28}{type(error).__name__}: {reason}", flush=True)
    sys.exit(int(failed))


@benchmarks.command()
@click.option("--model", default="", help="MLflow URI; empty trains a small one")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="folder of images to send; by default phantoms in five formats",
)
@click.option("--seconds", default=10.0, help="of each load")
def serving(model: str, images: Path | None, seconds: float) -> None:
    """Loads a served model, also with hostile requests, beside a bare app. Linux only."""
    with tempfile.TemporaryDirectory() as root:
        phantoms = Path(root, "phantoms")
        phantoms.mkdir()
        if not (model and images):
            write_chest_phantoms(phantoms, patients=PATIENTS, image_size=256)
        if model:
            environment = environment_of(Path(root))
        else:
            model, environment = _trained(Path(root), phantoms)
        files = example_files(images or phantoms)
        for line in measure(model, files, Path(root), environment, seconds):
            print(line, flush=True)


@benchmarks.command("beside")
@click.option("--model", default="", help="MLflow URI; empty trains a small one")
@click.option("--only", multiple=True, help="test only files whose names contain this; repeatable")
def beside_hostile(model: str, only: tuple[str, ...]) -> None:
    """Measures good requests while a server decodes each hostile file. Linux only."""
    with tempfile.TemporaryDirectory() as root:
        if model:
            environment = environment_of(Path(root))
        else:
            phantoms = Path(root, "phantoms")
            phantoms.mkdir()
            write_chest_phantoms(phantoms, patients=PATIENTS, image_size=256)
            model, environment = _trained(Path(root), phantoms)
        for line in beside(model, Path(root) / "served", environment, only):
            print(line, flush=True)


@benchmarks.command()
@click.option("--job", type=click.Choice(JOBS), default=JOBS[0], show_default=True)
@click.option("--kills", default=100, help="processes to kill")
@click.option("--seed", default=0, help="draws the times of the kills")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="keeps the folders of the commands here; by default they are removed",
)
def kills(job: str, kills: int, seed: int, folder: Path | None) -> None:
    """Kills a command at random times and compares its result. Not on Windows.

    Exit status 1 if anything was lost or left running, or if a result differs.
    """
    failed = False
    with tempfile.TemporaryDirectory() as root:
        place = folder or Path(root)
        place.mkdir(parents=True, exist_ok=True)
        for line in kill_and_compare(place, job, kills, seed):
            failed = failed or line.startswith(WRONG)
            print(line, flush=True)
    sys.exit(int(failed))


def _trained(root: Path, phantoms: Path) -> tuple[str, dict[str, str]]:
    """Trains a small model of phantoms; returns its URI and the environment of its store."""
    servers = TrainAndServe(root, str(phantoms / "labels.csv"), image_size=96)
    servers.train("small_resnet", "served")
    mlflow.set_tracking_uri(servers.environment["MLFLOW_TRACKING_URI"])
    return "models:/served@champion", servers.environment


def _print_ways(
    data: Path,
    images: int,
    ways: tuple[Way, ...],
    cutoff: str,
    epochs: int,
    seeds: int,
    size: int = 224,
) -> None:
    with subset_of(data, images, test=300) as (folder, cache):
        os.environ["MEDTL_CACHE"] = str(cache)
        for line in compare_ways(folder, ways, cutoff, epochs, seeds, size):
            print(line, flush=True)


if __name__ == "__main__":
    benchmarks()
