"""Logging of a run: data, curves, scores, plots and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import mlflow
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from medtl.data.dataset import Dataset
from medtl.data.label_encoding import membership_matrix
from medtl.data.quality.checks import data_facts
from medtl.evaluation import example_selection
from medtl.evaluation.calibration import finding_counts, presence_reliability, reliability_table
from medtl.evaluation.confidence_intervals import Measures
from medtl.evaluation.decision_curve import decision_curve
from medtl.evaluation.delong import with_delong
from medtl.evaluation.jackknife import Interval
from medtl.inference.decisions import findings_text
from medtl.inference.grad_cam import side_by_side
from medtl.reporting.csv_export import harmless
from medtl.reporting.data_report import data_report, report_page
from medtl.reporting.plots import classification, image_sheets, robustness, training_curves
from medtl.tracking.artifacts import log_intervals, log_picture, log_table
from medtl.training.loop import Epoch, TrainResult

SEED = 0  # equal data has an equal report, whatever the seed of the training


def log_data_report(dataset: Dataset) -> None:
    """The page `data/report.html` and its tables; prints a line on stderr for what matters."""
    report = data_report(data_facts(dataset, SEED), SEED)
    mlflow.log_text(report_page(report), "data/report.html")
    for name, table in report.tables.items():
        mlflow.log_text(harmless(table).to_csv(index=False), f"data/{name}.csv")
    for line in report.findings:
        if line not in dataset.notes:  # notes are printed separately
            print(f"data {dataset.name}: {line}", file=sys.stderr)


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
    return image_sheets.contact_sheet(
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


def log_fit(fit: TrainResult) -> None:
    """The learning curves of a finished training."""
    epochs = history(fit)
    log_picture(
        training_curves.learning_curves(epochs, fit.best.number), "training/learning_curves.png"
    )
    log_table(epochs, "training/history.csv")


def history(fit: TrainResult) -> pd.DataFrame:
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
    log_picture(classification.roc_curves(labels, probabilities, per_class), f"{place}/roc.png")
    log_picture(
        classification.precision_recall_curves(labels, probabilities, per_class),
        f"{place}/precision_recall.png",
    )
    curve = decision_curve(labels, probabilities, classes)
    log_table(curve, f"{place}/decision_curve.csv")
    log_picture(classification.decision_curves(curve, len(labels)), f"{place}/decision_curve.png")
    drawn = _pictures_of_findings if dataset.multi_label else _pictures_of_classes
    for name, figure in drawn(dataset, indices, probabilities, uncalibrated, decisions):
        log_picture(figure, f"{place}/{name}.png")
    if dataset.multi_label:
        log_table(finding_counts(labels, decisions, classes), f"{place}/decisions.csv")
        reliability = presence_reliability(labels, probabilities, classes)
        log_table(reliability, f"{place}/reliability.csv")


def log_calibration(gain: pd.DataFrame, split: str) -> None:
    """What calibration did, as `medtl.evaluation.calibration` has it; ECE before as metric."""
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
    yield "confusion", classification.confusion_matrix(labels, decisions, dataset.classes)
    tables = {
        "as trained": reliability_table(labels, uncalibrated),
        "calibrated": reliability_table(labels, probabilities),
    }
    yield "reliability", classification.reliability_diagram(tables)
    worst = example_selection.worst_mistakes(labels, decisions, probabilities)
    images = side_by_side(dataset.images(indices[worst]))
    each = (labels[worst], decisions[worst], probabilities[worst])
    yield "worst_mistakes", image_sheets.mistakes_sheet(images, *each, dataset.classes)


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
    yield "decisions", classification.finding_decisions(counts)
    tables = {
        "as trained": presence_reliability(labels, uncalibrated, findings),
        "calibrated": presence_reliability(labels, probabilities, findings),
    }
    yield "reliability", classification.finding_reliability(tables)
    cases, about = example_selection.worst_finding_mistakes(labels, decisions, probabilities)
    images = side_by_side(dataset.images(indices[cases]))
    names = [findings[index] for index in about]
    each = (decisions[cases, about], probabilities[cases, about])
    yield "worst_mistakes", image_sheets.finding_mistakes_sheet(images, names, *each)


def log_sites(table: pd.DataFrame, name: str) -> None:
    """A model at home and on the data `name`; `table` as `medtl.evaluation.external_validation` has
    it."""
    log_table(table, "evaluation/internal_external.csv")
    log_picture(robustness.internal_and_external(table, name), "evaluation/internal_external.png")


def log_subgroups(table: pd.DataFrame, overall: Mapping[str, Interval], split: str) -> None:
    """A model on parts of a split; arguments as `pictures.subgroup_scores` takes them."""
    log_table(table, f"evaluation/{split}/subgroups.csv")
    log_picture(robustness.subgroup_scores(table, overall), f"evaluation/{split}/subgroups.png")


def _some_of_each_class(dataset: Dataset) -> np.ndarray:
    """Returns the first training images of each class in turn, the same for the same split."""
    train = dataset.splits["train"]
    each = max(1, SHEET_IMAGES // len(dataset.classes))
    there = membership_matrix(dataset.labels[train], len(dataset.classes))
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
