"""Logging of the data set and of the learning curves of a run."""

from __future__ import annotations

import dataclasses
import sys

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from mlflow.data.pandas_dataset import from_pandas

from medtl.data.dataset import Dataset
from medtl.data.few_cases import CONFORMAL
from medtl.data.label_encoding import membership_matrix
from medtl.data.quality.checks import data_facts
from medtl.data.sources.phantoms.datasets import NAMES as PHANTOMS
from medtl.inference.grad_cam import side_by_side
from medtl.reporting.csv_export import harmless
from medtl.reporting.data_report import data_report, report_page
from medtl.reporting.plots import image_sheets, training_curves
from medtl.tracking.artifacts import log_picture, log_table
from medtl.tracking.store import current_run
from medtl.training.loop import Epoch, TrainResult


def announce(kind: str, subject: str, data: str, *more: str) -> None:
    """Prints the first line of a command: its subject, its data, and the run that it works in."""
    parts = [f"{subject} on {data}" if data else subject, *more]
    print(f"{kind}: {', '.join(parts)}, run {current_run().info.run_id}", flush=True)


SEED = 0  # equal data has an equal report, whatever the seed of the training


def log_data_report(dataset: Dataset) -> tuple[str, ...]:
    """Logs `data/report.html` and its tables; prints and returns the findings."""
    report = data_report(data_facts(dataset, SEED), SEED)
    mlflow.log_text(report_page(report), "data/report.html")
    for name, table in report.tables.items():
        mlflow.log_text(harmless(table).to_csv(index=False), f"data/{name}.csv")
    for line in report.findings:
        if line not in dataset.notes:  # notes are printed separately
            print(f"data {dataset.name}: {line}", file=sys.stderr)
    return tuple(report.findings)


SHEET_IMAGES = 16  # images on a contact sheet


def log_data(dataset: Dataset) -> Dataset:
    """Logs the data set as an MLflow input, its splits, a contact sheet and the data report.

    Prints its size, its notes and the findings of the report on stderr, one line each. Returns the
    data set with the findings as its `warnings`. Phantoms get none: each is drawn on its own, so
    that two are alike by chance only.
    """
    frame = dataset.frame[[dataset.naming, "label", "patient", "split"]]
    if CONFORMAL in dataset.splits:
        split = frame["split"].to_numpy(object, copy=True)
        split[dataset.splits[CONFORMAL]] = CONFORMAL
        frame = frame.assign(split=split)
    source = from_pandas(frame, name=dataset.name, targets="label", digest=dataset.fingerprint)
    mlflow.log_input(source, context="training")
    log_table(frame, "data/splits.csv")
    log_table(_counts(dataset), "data/counts.csv")
    for note in (_size(dataset), *dataset.notes):
        print(f"data {dataset.name}: {note}", file=sys.stderr)
    if dataset.notes:
        mlflow.log_text("\n".join(dataset.notes) + "\n", "data/notes.txt")
    log_picture(contact_sheet(dataset), "data/contact_sheet.png")
    found = log_data_report(dataset)
    return dataclasses.replace(dataset, warnings=() if dataset.source in PHANTOMS else found)


def contact_sheet(dataset: Dataset) -> Figure:
    """Draws some training images of each class, or with each finding."""
    chosen = _some_of_each_class(dataset)
    return image_sheets.contact_sheet(
        side_by_side(dataset.images(chosen)),
        dataset.frame["label"].iloc[chosen].tolist(),
        f"Training images of {dataset.name}",
        f"{len(chosen)} of {len(dataset.splits['train'])}",
    )


def log_epoch(epoch: Epoch) -> None:
    """Logs the metrics of one epoch; the step is the epoch, from 1."""
    mlflow.log_metrics(epoch.metrics(), step=epoch.number)


def log_halved(batch_size: int | None) -> None:
    """Logs the batch size of a training that was reduced for lack of memory; None otherwise."""
    if batch_size is not None:
        mlflow.set_tag("medtl.batch_size", f"{batch_size}, for want of memory")


def log_fit(fit: TrainResult) -> None:
    """Logs the learning curves of a finished training."""
    epochs = history(fit)
    log_picture(
        training_curves.learning_curves(epochs, fit.best.number), "training/learning_curves.png"
    )
    log_table(epochs, "training/history.csv")


def history(fit: TrainResult) -> pd.DataFrame:
    """Returns a row an epoch: its number in `epoch`, and its metrics."""
    return pd.DataFrame([{"epoch": each.number, **each.metrics()} for each in fit.epochs])


def _some_of_each_class(dataset: Dataset) -> np.ndarray:
    """Returns the first training images of each class in turn, the same for the same split."""
    train = dataset.splits["train"]
    each = max(1, SHEET_IMAGES // len(dataset.classes))
    there = membership_matrix(dataset.labels[train], len(dataset.classes))
    chosen = [image for column in there.T for image in train[column][:each].tolist()]
    return np.array(list(dict.fromkeys(chosen)), np.int64)


def _size(dataset: Dataset) -> str:
    splits = ", ".join(f"{name} {len(rows):,}" for name, rows in dataset.splits.items())
    units = "cases" if dataset.modalities else "images"
    kinds = "findings" if dataset.multi_label else "classes"
    return f"{len(dataset.frame):,} {units}, {len(dataset.classes)} {kinds}: {splits}"


def _counts(dataset: Dataset) -> pd.DataFrame:
    """Returns a row a class, or a finding: how many images of each split are of it, or have it."""
    if not dataset.multi_label:
        return pd.crosstab(dataset.frame["label"], dataset.frame["split"]).reset_index()
    counts = {name: dataset.counts(indices) for name, indices in dataset.splits.items()}
    return pd.DataFrame({"label": list(dataset.classes), **counts})
