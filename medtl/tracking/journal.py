"""Logging of a run to MLflow: data, curves, scores, pictures and tables, by path."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import Tensor

from medtl.data.dataset import Dataset
from medtl.data.findings import findings_text, members
from medtl.evaluation import pictures
from medtl.evaluation.calibration import reliability_table
from medtl.evaluation.delong import with_delong
from medtl.evaluation.intervals import Difference, Interval, Measures
from medtl.evaluation.net_benefit import decision_curve
from medtl.evaluation.places import side_by_side
from medtl.evaluation.presence import finding_counts, presence_reliability
from medtl.spreadsheet import write_csv
from medtl.tracking.data_report import log_data_report
from medtl.training.loop import Epoch, Fit

DPI = 160
SHEET_IMAGES = 16  # images on a contact sheet


def log_data(dataset: Dataset) -> None:
    """Logs the data set as an MLflow input, its splits, a contact sheet and the data report.

    Prints its notes and the findings of the report on stderr, one line each.
    """
    frame = dataset.frame[[dataset.naming, "label", "patient", "split"]]
    source = mlflow.data.from_pandas(
        frame, name=dataset.name, targets="label", digest=dataset.fingerprint
    )
    mlflow.log_input(source, context="training")
    log_table(frame, "data/splits.csv")
    log_table(_counts(dataset), "data/counts.csv")
    for note in dataset.notes:
        print(f"data {dataset.name}: {note}", file=sys.stderr)
    if dataset.notes:
        mlflow.log_text("\n".join(dataset.notes) + "\n", "data/notes.txt")
    log_picture(contact_sheet(dataset), "data/contact_sheet.png")
    log_data_report(dataset)


def contact_sheet(dataset: Dataset) -> Figure:
    """Some training images of each class, or with each finding."""
    chosen = _some_of_each_class(dataset)
    return pictures.contact_sheet(
        side_by_side(dataset.images(chosen)),
        dataset.frame["label"].iloc[chosen].tolist(),
        f"Training images of {dataset.name}",
        f"{len(chosen)} of {len(dataset.splits['train'])}",
    )


def log_epoch(epoch: Epoch) -> None:
    """The curves of one epoch; the step is the epoch, from 1."""
    mlflow.log_metrics(epoch.metrics(), step=epoch.number)


def log_halved(batch_size: int | None) -> None:
    """The images a step of a training for whose own batch memory did not suffice; None else."""
    if batch_size is not None:
        mlflow.set_tag("medtl.batch_size", f"{batch_size}, for want of memory")


def log_fit(fit: Fit) -> None:
    """The learning curves of a finished training."""
    epochs = history(fit)
    log_picture(pictures.learning_curves(epochs, fit.best.number), "training/learning_curves.png")
    log_table(epochs, "training/history.csv")


def history(fit: Fit) -> pd.DataFrame:
    """Returns a row an epoch: its number in `epoch`, and its metrics."""
    return pd.DataFrame([{"epoch": each.number, **each.metrics()} for each in fit.epochs])


def log_scores(
    dataset: Dataset,
    split: str,
    indices: np.ndarray,
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    decisions: np.ndarray,
    measures: Measures,
) -> None:
    """Metrics with intervals, pictures and tables of a model's scores on N images of a split.

    `indices` [N] are the images of the data set; `probabilities` and `uncalibrated` [N, K],
    `decisions` int [N], of findings bool [N, K].
    """
    log_intervals({f"{split}_{name}": each for name, each in measures.summary.items()})
    labels, classes, per_class = dataset.labels[indices], dataset.classes, measures.per_class
    place = f"evaluation/{split}"
    table = with_delong(per_class, labels, probabilities, dataset.groups[indices])
    log_table(table, f"{place}/per_class.csv")
    log_table(measures.averages, f"{place}/averages.csv")
    predictions = _predictions(dataset, indices, probabilities, decisions)
    log_table(predictions, f"{place}/predictions.csv")
    log_picture(pictures.roc_curves(labels, probabilities, per_class), f"{place}/roc.png")
    log_picture(
        pictures.precision_recall_curves(labels, probabilities, per_class),
        f"{place}/precision_recall.png",
    )
    curve = decision_curve(labels, probabilities, classes)
    log_table(curve, f"{place}/decision_curve.csv")
    log_picture(pictures.decision_curves(curve, len(labels)), f"{place}/decision_curve.png")
    drawn = _pictures_of_findings if dataset.multi_label else _pictures_of_classes
    for name, figure in drawn(dataset, indices, probabilities, uncalibrated, decisions):
        log_picture(figure, f"{place}/{name}.png")
    if dataset.multi_label:
        log_table(finding_counts(labels, decisions, classes), f"{place}/decisions.csv")
        reliability = presence_reliability(labels, probabilities, classes)
        log_table(reliability, f"{place}/reliability.csv")


def log_calibration(gain: pd.DataFrame, split: str) -> None:
    """What calibration did, as `medtl.evaluation.recalibration` has it; ECE before as metric."""
    log_table(gain, f"evaluation/{split}/calibration.csv")
    before = gain.set_index("probabilities").loc["as trained"]
    interval = Interval(before["ece"], before["ece_low"], before["ece_high"])
    log_intervals({f"{split}_ece_as_trained": interval})


def _pictures_of_classes(
    dataset: Dataset,
    indices: np.ndarray,
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    decisions: np.ndarray,
) -> Iterator[tuple[str, Figure]]:
    """Yields the pictures of decisions for one of several classes, by name."""
    labels = dataset.labels[indices]
    yield "confusion", pictures.confusion_matrix(labels, decisions, dataset.classes)
    tables = {
        "as trained": reliability_table(labels, uncalibrated),
        "calibrated": reliability_table(labels, probabilities),
    }
    yield "reliability", pictures.reliability_diagram(tables)
    worst = pictures.worst_mistakes(labels, decisions, probabilities)
    images = side_by_side(dataset.images(indices[worst]))
    each = (labels[worst], decisions[worst], probabilities[worst])
    yield "worst_mistakes", pictures.mistakes_sheet(images, *each, dataset.classes)


def _pictures_of_findings(
    dataset: Dataset,
    indices: np.ndarray,
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    decisions: np.ndarray,
) -> Iterator[tuple[str, Figure]]:
    """The pictures that tell of decisions on findings, by name; arguments as in `log_scores`."""
    labels, findings = dataset.labels[indices], dataset.classes
    counts = finding_counts(labels, decisions, findings)
    yield "decisions", pictures.finding_decisions(counts)
    tables = {
        "as trained": presence_reliability(labels, uncalibrated, findings),
        "calibrated": presence_reliability(labels, probabilities, findings),
    }
    yield "reliability", pictures.finding_reliability(tables)
    cases, about = pictures.worst_finding_mistakes(labels, decisions, probabilities)
    images = side_by_side(dataset.images(indices[cases]))
    names = [findings[index] for index in about]
    each = (decisions[cases, about], probabilities[cases, about])
    yield "worst_mistakes", pictures.finding_mistakes_sheet(images, names, *each)


def log_search(trials: pd.DataFrame, importances: Mapping[str, float]) -> None:
    """The table and the pictures of a search; `trials` as `medtl.search.study.table` gives it."""
    metric = "validation AUROC"
    log_table(trials, "search/trials.csv")
    known = ("architecture", "optimizer", "lr", "classifier", "cutoff")
    searched = [name for name in known if name in trials]
    log_picture(pictures.search_history(trials, metric), "search/history.png")
    log_picture(
        pictures.parallel_coordinates(trials, searched, metric),
        "search/parallel_coordinates.png",
    )
    if importances:
        log_picture(
            pictures.hyperparameter_importances(importances, metric), "search/importances.png"
        )


def log_cutoffs(trials: pd.DataFrame, order: Sequence[str], folder: str) -> None:
    """The scores of one network's trials against its cut-offs, `order`, if any was completed."""
    curve = trials.loc[trials["state"] == "complete", ["cutoff", "score"]]
    if len(curve):
        figure = pictures.score_against_cutoff({"trials": curve}, order, "validation AUROC")
        log_picture(figure, f"{folder}/score_against_cutoff.png")


def log_probe(curve: pd.DataFrame, folder: str) -> None:
    """The OCL curve of the layer probe; `curve` as `medtl.search.probe.Probe` has it."""
    log_table(curve, f"{folder}/layer_probe.csv")
    figure = pictures.score_against_cutoff(
        {"linear probe": curve}, curve["cutoff"].tolist(), "AUROC by cross-validation"
    )
    log_picture(figure, f"{folder}/layer_probe.png")


def log_sites(table: pd.DataFrame, name: str) -> None:
    """A model at home and on the data `name`; `table` as `medtl.evaluation.sites` has it."""
    log_table(table, "evaluation/internal_external.csv")
    log_picture(pictures.internal_and_external(table, name), "evaluation/internal_external.png")


def log_subgroups(table: pd.DataFrame, overall: Mapping[str, Interval], split: str) -> None:
    """A model on parts of a split; arguments as `pictures.subgroup_scores` takes them."""
    log_table(table, f"evaluation/{split}/subgroups.csv")
    log_picture(pictures.subgroup_scores(table, overall), f"evaluation/{split}/subgroups.png")


def log_intervals(intervals: Mapping[str, Interval | Difference]) -> None:
    """Each as the metrics NAME, NAME_low and NAME_high, where they are finite.

    All at once: each call is a request to a tracking server.
    """
    bounds = {
        f"{name}{end}": value
        for name, each in intervals.items()
        for end, value in (("", each.value), ("_low", each.low), ("_high", each.high))
    }
    mlflow.log_metrics({name: value for name, value in bounds.items() if np.isfinite(value)})


def log_picture(figure: Figure, place: str) -> None:
    """A figure as a PNG artifact."""
    with _file_for(place) as path:
        figure.savefig(path, dpi=DPI)


def log_table(frame: pd.DataFrame, place: str) -> None:
    """Logs a table as a CSV artifact, escaped for spreadsheets."""
    with _file_for(place) as path:
        write_csv(frame, path)


def log_tensors(tensors: Mapping[str, Tensor], place: str, facts: Mapping[str, str]) -> None:
    """Tensors by name as a safetensors artifact, with `facts` in its metadata."""
    with _file_for(place) as path:
        kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(kept, path, dict(facts))


@contextlib.contextmanager
def _file_for(place: str) -> Iterator[Path]:
    folder, name = place.rsplit("/", 1)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / name
        yield path
        mlflow.log_artifact(str(path), folder)


def _some_of_each_class(dataset: Dataset) -> np.ndarray:
    """Returns the first training images of each class in turn, the same for the same split."""
    train = dataset.splits["train"]
    each = max(1, SHEET_IMAGES // len(dataset.classes))
    there = members(dataset.labels[train], len(dataset.classes))
    chosen = [image for column in there.T for image in train[column][:each].tolist()]
    return np.array(list(dict.fromkeys(chosen)), np.int64)


def _counts(dataset: Dataset) -> pd.DataFrame:
    """Returns a row a class, or a finding: how many images of each split are of it, or have it."""
    if not dataset.multi_label:
        return pd.crosstab(dataset.frame["label"], dataset.frame["split"]).reset_index()
    counts = {name: dataset.counts(indices) for name, indices in dataset.splits.items()}
    return pd.DataFrame({"label": list(dataset.classes), **counts})


def _predictions(
    dataset: Dataset, indices: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray
) -> pd.DataFrame:
    table = dataset.frame.iloc[indices][[dataset.naming, "label", "patient"]].reset_index(drop=True)
    if dataset.multi_label:
        table["decision"] = [findings_text(each, dataset.classes) for each in decisions]
    else:
        table["decision"] = [dataset.classes[index] for index in decisions]
    for index, name in enumerate(dataset.classes):
        table[f"probability_{name}"] = probabilities[:, index]
    return table
