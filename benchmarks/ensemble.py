"""Ensemble of the models of folds beside its members: test AUROC, and latency when served."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import mlflow
import numpy as np

from benchmarks.hostile import rows_of
from benchmarks.served import environment_of, serving
from benchmarks.serving import HEADING, PATH, ROUNDS, Load, example_files, measured_load
from benchmarks.subset import subset_of
from medtl.data.dataset import Dataset
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.evaluation.confidence_intervals import mean_difference, mean_score
from medtl.inference.predictor import Predictor
from medtl.networks.pretrained import Backbone, load_weights
from medtl.networks.registry import build
from medtl.pipeline.cross_validation import Member, fold_learner, fold_member
from medtl.pipeline.ensembles import ensemble_predictor
from medtl.pipeline.predictors import trained_predictor
from medtl.pipeline.scoring import in_batches
from medtl.settings.data import Reading
from medtl.settings.training import TrainSettings
from medtl.tracking.logged_model import example_images, log_model
from medtl.training.learner import TransferLearner

PATIENTS = 120  # of the phantoms
SIDE = 224  # of the phantoms, in pixels
FILES = 8  # images that are sent in turn


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="CSV with the columns path, label, patient; by default phantoms.",
)
@click.option("--images", default=600, help="images in folds")
@click.option("--test", default=300, help="test images")
@click.option("--folds", default=5, help="number of members")
@click.option("--architecture", default="mobilenet_v2", show_default=True)
@click.option("--weights", default="imagenet", help="initial weights, as of train")
@click.option("--cutoff", default="features.14", help="the first layer that is trained")
@click.option("--epochs", default=0, help="epochs a member; 0 for the budget of the cut-off")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--seconds", default=10.0, help="of each load; 0 serves nothing")
def ensemble(
    data: Path | None,
    images: int,
    test: int,
    folds: int,
    architecture: str,
    weights: str,
    cutoff: str,
    epochs: int,
    size: int,
    seconds: float,
) -> None:
    """Compares an ensemble with its members: test AUROC, and latency of both when served."""
    with tempfile.TemporaryDirectory() as root:
        if data is None:
            drawn = Path(root, "phantoms")
            drawn.mkdir()
            write_chest_phantoms(drawn, patients=PATIENTS, image_size=SIDE)
            data = drawn / "labels.csv"
        with subset_of(data, images, valid=0, test=test) as (folder, cache):
            os.environ["MEDTL_CACHE"] = str(cache)
            settings = TrainSettings(
                architecture=architecture, weights=weights, cutoff=cutoff, epochs=epochs,
                folds=folds,
            )  # fmt: skip
            learner, members, together = _trained(folder, settings, size)
            for line in _scores(learner, members, together):
                print(line, flush=True)
            if seconds:
                first = trained_predictor(members[0].learner, members[0].trained)
                files = example_files(folder / "test")[:FILES]
                for line in _latency(first, together, files, Path(root), seconds):
                    print(line, flush=True)


def _trained(
    folder: Path, settings: TrainSettings, size: int
) -> tuple[TransferLearner, list[Member], Predictor]:
    """Trains a member a fold; returns the learner, the members and their ensemble."""
    reading = Reading(duplicates="allow", folds=settings.folds)
    dataset = load(str(folder / "labels.csv"), size, seed=0, reading=reading)
    network = build(settings.architecture, len(dataset.classes), size, seed=0)
    loaded = load_weights(network, settings.architecture, settings.weights)
    expected = dataclasses.replace(loaded.preprocessing, image_size=size)
    backbone = Backbone(settings.architecture, settings.weights, network, expected)
    learner = TransferLearner(backbone, dataset, settings)
    drawn = draw_folds(dataset, settings.folds, seed=0)
    members = []
    for number, name in enumerate(drawn.names):
        own = fold_learner(learner, drawn, number)
        recipe = own.recipe(settings.optimizer, settings.lr)
        members.append(fold_member(own, name, own.train(settings.cutoff, recipe)))
    order = np.argsort(np.concatenate([each.predictions.indices for each in members]))
    logits = np.concatenate([each.predictions.logits for each in members])[order]
    together = ensemble_predictor(
        learner,
        [each.trained for each in members],
        logits,
        dataset.labels[drawn.pool],
        dataset.groups[drawn.pool],
        drawn.splits(0)["test"],
    )
    return learner, members, together


def _scores(
    learner: TransferLearner, members: Sequence[Member], together: Predictor
) -> Iterator[str]:
    """Yields test AUROCs with 95 % intervals over patients, and the paired difference."""
    dataset = learner.dataset
    test = dataset.splits["test"]
    labels, groups = dataset.labels[test], dataset.groups[test]
    own = [_test_probabilities(_alone(together, each), dataset) for each in members]
    mean = _test_probabilities(together, dataset)
    yield f"{'test AUROC':<36}(95 % intervals over {dataset.unit}, {len(test)} images)"
    for member, each in zip(members, own, strict=True):
        yield f"  member of fold {member.fold:<19}{mean_score(labels, [each], groups, 'auroc', 0)}"
    yield f"  {'mean of the members':<34}{mean_score(labels, own, groups, 'auroc', 0)}"
    yield f"  {'ensemble':<34}{mean_score(labels, [mean], groups, 'auroc', 0)}"
    found = mean_difference(labels, [(each, mean) for each in own], groups, "auroc", 0)
    yield (
        f"  {'ensemble less mean of the members':<34}{found.value:+.4f} "
        f"({found.low:+.4f} to {found.high:+.4f})"
    )


def _alone(together: Predictor, member: Member) -> Predictor:
    """Returns a member as a predictor, with the temperature of the ensemble."""
    network = member.trained.network.eval()
    return dataclasses.replace(together, network=network, members=0, domain=None)


def _test_probabilities(predictor: Predictor, dataset: Dataset) -> np.ndarray:
    logits = in_batches(predictor.scores, dataset, dataset.splits["test"])
    return predictor.probabilities(logits, predictor.temperature)


def _latency(
    first: Predictor, together: Predictor, files: Sequence[bytes], folder: Path, seconds: float
) -> Iterator[str]:
    """Yields the latency of one image from one client of a member and of the ensemble.

    Both servers run at once, and the loads take turns.
    """
    store = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(store)
    mlflow.create_experiment("ensemble", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("ensemble")
    requests = {
        "": [rows_of([file]) for file in files],
        ", explain": [rows_of([file], explain=True) for file in files],
    }
    environment = environment_of(folder) | {"MLFLOW_TRACKING_URI": store}
    size = first.image_size
    names = {"member of one fold": first, f"ensemble of {together.members}": together}
    with contextlib.ExitStack() as stack:
        servers = {}
        for number, (name, predictor) in enumerate(names.items()):
            with mlflow.start_run():
                model = log_model(predictor, example_images(size, 1, 1))
            place = folder / f"served{number}"
            servers[name] = stack.enter_context(serving(model.model_uri, place, environment))
        loads: dict[str, Load] = {}
        for _ in range(ROUNDS):
            for suffix, asked in requests.items():
                for name, server in servers.items():
                    key = f"{name}{suffix}"
                    found = measured_load(server, PATH, asked, 1, seconds / ROUNDS)
                    loads[key] = loads[key] + found if key in loads else found
    yield HEADING.format("served, one client, an image a request")
    for name, load_of_all in loads.items():
        yield f"{name:<44}{load_of_all}"
    single, several = names
    for suffix in requests:
        one, all_of_them = (loads[f"{name}{suffix}"] for name in (single, several))
        median = np.median(all_of_them.times) / np.median(one.times)
        processor = _processor(all_of_them) / _processor(one)
        yield (
            f"ensemble against one member{suffix or ', answer'}: {median:.2f} times the median, "
            f"{processor:.2f} times the processor time"
        )
    counts = [
        sum(parameter.numel() for parameter in each.network.parameters())
        for each in (first, together)
    ]
    yield f"parameters: {counts[0]:,} and {counts[1]:,}, {counts[1] / counts[0]:.2f} times"


def _processor(load: Load) -> float:
    """Returns processor seconds of an answer."""
    return load.processor / len(load.times)
