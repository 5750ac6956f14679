"""Logging of a search: its trials, cut-offs and linear probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from medtl.reporting.plots import tuning
from medtl.tracking.artifacts import log_picture, log_table


def log_search(trials: pd.DataFrame, importances: Mapping[str, float]) -> None:
    """The table and the pictures of a search; `trials` as `medtl.tuning.study.table` gives it."""
    metric = "validation AUROC"
    log_table(trials, "search/trials.csv")
    known = ("architecture", "optimizer", "lr", "classifier", "cutoff")
    searched = [name for name in known if name in trials]
    log_picture(tuning.search_history(trials, metric), "search/history.png")
    log_picture(
        tuning.parallel_coordinates(trials, searched, metric),
        "search/parallel_coordinates.png",
    )
    if importances:
        log_picture(
            tuning.hyperparameter_importances(importances, metric), "search/importances.png"
        )


def log_cutoffs(trials: pd.DataFrame, order: Sequence[str], folder: str) -> None:
    """The scores of one network's trials against its cut-offs, `order`, if any was completed."""
    curve = trials.loc[trials["state"] == "complete", ["cutoff", "score"]]
    if len(curve):
        figure = tuning.score_against_cutoff({"trials": curve}, order, "validation AUROC")
        log_picture(figure, f"{folder}/score_against_cutoff.png")


def log_probe(curve: pd.DataFrame, folder: str) -> None:
    """The OCL curve of the layer probe; `curve` as `medtl.tuning.linear_probe.Probe` has it."""
    log_table(curve, f"{folder}/layer_probe.csv")
    figure = tuning.score_against_cutoff(
        {"linear probe": curve}, curve["cutoff"].tolist(), "AUROC by cross-validation"
    )
    log_picture(figure, f"{folder}/layer_probe.png")
