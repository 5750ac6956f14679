"""Cross-validation beside one training with the same cut, and beside one plain loop a fold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
import mlflow
import numpy as np
import pandas as pd

from benchmarks.side_process import Side
from benchmarks.subset import subset_of
from benchmarks.trials import Trial
from medtl.data.folds import draw_folds
from medtl.data.loading import load
from medtl.settings.data import Reading

LR = 1e-3


@dataclass(frozen=True)
class Command:
    """A `train` command that was run: its seconds, and the metrics of its run."""

    seconds: float
    metrics: dict[str, float]


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="CSV with the columns path, label, patient (of a split only train), or a folder CLASS/...",
)
@click.option("--positive", default="", help="labels that make an image positive, as of train")
@click.option("--folds", default=5, help="folds, and plain loops")
@click.option("--loops", default=0, help="plain loops to run, for the mean of all; 0 for all")
@click.option("--images", default=450, help="images in folds")
@click.option("--test", default=60, help="images of the test split")
@click.option("--architecture", default="mobilenet_v2")
@click.option("--weights", default="imagenet")
@click.option("--cutoff", default="features.14", help="first layer that is trained")
@click.option("--size", default=224, help="side of the images in pixels")
@click.option("--epochs", default=10, help="epochs a training, of every side")
@click.option("--patience", default=4, help="of medtl; plain loops train all their epochs")
@click.option("--seed", default=0, help="draws images, folds, new heads and orders")
def folds(
    data: Path,
    positive: str,
    folds: int,
    loops: int,
    images: int,
    test: int,
    architecture: str,
    weights: str,
    cutoff: str,
    size: int,
    epochs: int,
    patience: int,
    seed: int,
) -> None:
    """Times `train folds=K`, one `train` with the same cut, and K plain loops, in turn.

    Commands are timed whole, with imports, decoding, evaluation and logging, each with an empty
    cache. The plain loops only train and validate, each on the parts of one fold.
    """
    valid = images // 6
    with subset_of(data, images - valid, valid, test, seed) as (folder, cache):
        shared = {
            "data": str(folder / "labels.csv"), "architecture": architecture, "weights": weights,
            "cutoff": cutoff, "image-size": size, "epochs": epochs, "patience": patience,
            "optimizer": "adam", "lr": LR, "augment": "none", "duplicates": "allow", "seed": seed,
            "positive": positive,
        }  # fmt: skip
        one = _timed(shared, cache / "one")
        print(_line("one training", one.seconds, one.metrics["test_auroc"]), flush=True)
        all_folds = _timed({**shared, "folds": folds}, cache / "folds")
        scores = all_folds.metrics
        print(_line(f"{folds} folds", all_folds.seconds, scores["test_auroc"]), flush=True)
        print(
            f"  {scores['fold_seconds']:.1f} s of them in the trainings of the folds, with the "
            "pass that fills the cache"
        )
        print(
            f"out-of-fold AUROC {scores['cv_auroc']:.3f} ({scores['cv_auroc_low']:.3f} to "
            f"{scores['cv_auroc_high']:.3f}), over folds {scores['cv_auroc_fold_mean']:.3f} ± "
            f"{scores['cv_auroc_fold_std']:.3f}"
        )
        trial = Trial(cutoff, "adam", LR)
        settings = {"architecture": architecture, "weights": weights, "size": size, "seed": seed}
        seconds, best = [], []
        for place in fold_folders(folder, folds, size, seed, positive)[: loops or folds]:
            with Side("plain", cache / "plain", folder=str(place), **settings) as side:
                outcome = side.run(trial, epochs)
            seconds.append(outcome.total)
            best.append(outcome.best)
    plain = float(np.mean(seconds)) * folds
    counted = f"{len(seconds)} run" if len(seconds) < folds else "all run"
    print(
        f"{f'{folds} plain loops':<16}{plain:8.1f} s   {counted}; validation AUROC "
        f"{np.mean(best):.3f}, of medtl's folds {scores['fold_valid_auroc']:.3f}"
    )
    print(f"{folds} folds take {all_folds.seconds / one.seconds:.2f} times one training")
    print(f"{folds} plain loops take {plain / all_folds.seconds:.1f} times {folds} folds of medtl")


def fold_folders(folder: Path, folds: int, size: int, seed: int, positive: str = "") -> list[Path]:
    """Links the images of each fold in `train/CLASS` and `valid/CLASS` of a folder of its own.

    The folds are those that `train` draws of `labels.csv` in `folder`.
    """
    reading = Reading(duplicates="allow", folds=folds, positive=positive)
    dataset = load(str(folder / "labels.csv"), size, seed, reading)
    drawn = draw_folds(dataset, folds, seed)
    places = []
    for number in range(folds):
        place = folder.parent / f"fold-{number + 1}"
        for split, indices in drawn.splits(number).items():
            for row in dataset.frame.iloc[indices].itertuples():
                own = place / split / row.label
                own.mkdir(parents=True, exist_ok=True)
                (own / Path(row.path).name).symlink_to(folder / row.path)
        places.append(place)
    return places


def _timed(settings: dict[str, object], place: Path) -> Command:
    """Runs `train` with an empty cache and a tracking store of its own."""
    place.mkdir(parents=True)
    store = f"sqlite:///{place}/mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MEDTL_CACHE": str(place / "cache"),
                   "PYTHONPATH": str(Path(__file__).parents[1])}  # fmt: skip
    environment.pop("MLFLOW_RUN_ID", None)
    asked = [f"--{name}={value}" for name, value in settings.items()]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "entrypoints.train", *asked],
        env=environment, cwd=place, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    found = _runs(store)
    (run,) = (row for _, row in found.iterrows() if row["tags.medtl.kind"] == "train")
    metrics = {
        name.removeprefix("metrics."): float(value)
        for name, value in run.items()
        if name.startswith("metrics.")
    }
    own = found[found["tags.medtl.kind"] == "fold"]
    if len(own):
        metrics["fold_valid_auroc"] = float(own["metrics.best_valid_auroc"].mean())
        spans = own["end_time"] - own["start_time"]
        metrics["fold_seconds"] = float(spans.sum().total_seconds())
    shutil.rmtree(place / "cache")
    return Command(seconds, metrics)


def _runs(store: str) -> pd.DataFrame:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        return mlflow.search_runs(search_all_experiments=True)
    finally:
        mlflow.set_tracking_uri(before)


def _line(name: str, seconds: float, auroc: float) -> str:
    return f"{name:<16}{seconds:8.1f} s   test AUROC {auroc:.3f}"
