"""Logging of evaluations: metrics, tables and pictures of what was computed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import mlflow
from matplotlib.figure import Figure

from medtl.evaluation.doubtful_labels import DoubtfulLabels
from medtl.evaluation.external_validation import ExternalEvaluation
from medtl.evaluation.heatmap_evaluation import Gallery, HeatmapEvaluation
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.ood_detection import DomainEvaluation
from medtl.evaluation.split_evaluation import CALIBRATED, SplitEvaluation
from medtl.evaluation.subgroups import SubgroupEvaluation
from medtl.reporting.plots import classification, image_sheets, robustness
from medtl.settings.evaluation import GRAD_CAM
from medtl.tracking.artifacts import log_intervals, log_picture, log_table
from medtl.tracking.lineage import DOUBTFUL

SIMILARITY = "explanation_similarity"
WITHOUT_DUPLICATES, WITHOUT_DOUBTFUL = "_without_twins", "_without_doubtful"  # suffixes of metrics


def log_evaluation(evaluation: SplitEvaluation) -> None:
    """Logs metrics with intervals, tables and pictures of a split, in `evaluation/SPLIT/`."""
    split, measures = evaluation.split, evaluation.measures
    metrics = {f"{split}_{name}": each for name, each in measures.summary.items()}
    metrics[f"{split}_ece_as_trained"] = evaluation.ece_as_trained
    if evaluation.without_duplicates is not None:
        scores = evaluation.without_duplicates.scores
        metrics |= {f"{split}_{name}{WITHOUT_DUPLICATES}": each for name, each in scores.items()}
    if evaluation.without_doubtful is not None:
        scores = evaluation.without_doubtful.without
        metrics |= {f"{split}_{name}{WITHOUT_DOUBTFUL}": each for name, each in scores.items()}
    if evaluation.sets is not None:
        metrics |= {f"{split}_{name}": each for name, each in evaluation.sets.summary.items()}
    log_intervals(metrics)
    tables = {
        "per_class": measures.per_class,
        "averages": measures.averages,
        "predictions": evaluation.predictions,
        "decision_curve": evaluation.curve,
        "calibration": evaluation.calibration,
    }
    if evaluation.counts is not None:
        tables |= {
            "decisions": evaluation.counts,
            "reliability": evaluation.reliability[CALIBRATED],
        }
    if evaluation.ordinal:
        tables["confusion"] = evaluation.confusion()
    if evaluation.sets is not None:
        tables["prediction_sets"] = evaluation.sets.per_class
    for name, table in tables.items():
        log_table(table, f"evaluation/{split}/{name}.csv")
    for name, figure in _pictures(evaluation):
        log_picture(figure, f"evaluation/{split}/{name}.png")


def _pictures(evaluation: SplitEvaluation) -> Iterator[tuple[str, Figure]]:
    cases, per_class = evaluation.cases, evaluation.measures.per_class
    yield "roc", classification.roc_curves(cases, per_class)
    yield "precision_recall", classification.precision_recall_curves(cases, per_class)
    yield "decision_curve", classification.decision_curves(evaluation.curve, len(cases.labels))
    mistakes, images = evaluation.mistakes, evaluation.mistaken_images
    if evaluation.counts is not None:
        yield "decisions", classification.finding_decisions(evaluation.counts)
        yield "reliability", classification.finding_reliability(evaluation.reliability)
        yield "worst_mistakes", image_sheets.finding_mistakes_sheet(images, mistakes)
        return
    yield "confusion", classification.confusion_matrix(cases)
    yield "reliability", classification.reliability_diagram(evaluation.reliability)
    yield "worst_mistakes", image_sheets.mistakes_sheet(images, mistakes)


def log_heatmaps(heatmaps: HeatmapEvaluation) -> None:
    """Logs a picture a class, tables, metrics and words of the checks, in `evaluation/SPLIT/`."""
    place = f"evaluation/{heatmaps.split}"
    if heatmaps.methods is not None:
        log_table(heatmaps.methods, f"{place}/explanation_methods.csv")
    if not heatmaps.galleries:
        return
    for number, gallery in enumerate(heatmaps.galleries, start=1):
        title = heatmaps.title(gallery)
        figure = image_sheets.explanation_gallery(gallery, title, heatmaps.subtitle())
        log_picture(figure, f"{place}/{_file_name(number, gallery, heatmaps)}.png")
    log_table(heatmaps.images, f"{place}/explanation.csv")
    log_table(heatmaps.check(), f"{place}/explanation_check.csv")
    mlflow.log_text(heatmaps.words + "\n", f"{place}/explanation.txt")
    metrics: dict[str, Interval] = {}
    for each in heatmaps.maps:
        name = SIMILARITY if each.method == GRAD_CAM else f"{SIMILARITY}_{each.method}"
        metrics |= {f"{name}_{stage}": interval for stage, interval in each.check.items()}
    log_intervals(metrics)


def _file_name(number: int, gallery: Gallery, heatmaps: HeatmapEvaluation) -> str:
    if len(heatmaps.galleries) == 1:
        return "explanation"
    return f"explanation_{number}_{re.sub(r'[^A-Za-z0-9]+', '_', gallery.name)}"


def log_doubtful(doubtful: DoubtfulLabels) -> None:
    """Logs the list of doubtful labels, and a gallery of the first ones if there are any."""
    log_table(doubtful.table, DOUBTFUL)
    if len(doubtful.table):
        figure = image_sheets.doubtful_sheet(doubtful.images, doubtful.table)
        log_picture(figure, DOUBTFUL.replace(".csv", ".png"))


def log_external(external: ExternalEvaluation) -> None:
    """Logs the scores of a model on its own test split and on other data."""
    log_table(external.table, "evaluation/internal_external.csv")
    figure = robustness.internal_and_external(external.table, external.name)
    log_picture(figure, "evaluation/internal_external.png")


def log_subgroups(subgroups: SubgroupEvaluation) -> None:
    """Logs the table and a picture of subgroups of a split."""
    place = f"evaluation/{subgroups.split}/subgroups"
    log_table(subgroups.table, f"{place}.csv")
    log_picture(robustness.subgroup_scores(subgroups.table, subgroups.overall), f"{place}.png")


def log_domain(domain: DomainEvaluation) -> None:
    """Logs metrics, the table and a picture of the detection of out-of-distribution images."""
    log_table(domain.table, "evaluation/domain.csv")
    log_picture(
        robustness.domain_distances(domain.distances, domain.table), "evaluation/domain.png"
    )
    mlflow.log_metrics(domain.metrics())
