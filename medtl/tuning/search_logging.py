"""Logging of a search: its trials, cut-offs and linear probe."""

from __future__ import annotations

import mlflow
import optuna
import pandas as pd

from medtl.reporting.plots import tuning
from medtl.tracking.artifacts import log_picture, log_table
from medtl.tuning.interactive_plots import plots_page
from medtl.tuning.search_result import NetworkTrials, SearchResult
from medtl.tuning.search_space import AnySpace

METRIC = "validation AUROC"
PARAMETERS = ("architecture", "weights", "optimizer", "lr", "augment", "classifier", "cutoff")
"""Columns of the trials that are shown where they are searched."""


def log_search(result: SearchResult) -> None:
    """Logs the table of the trials and the plots of a search."""
    log_table(result.trials, "search/trials.csv")
    searched = [name for name in PARAMETERS if name in result.trials]
    log_picture(tuning.search_history(result.trials, METRIC), "search/history.png")
    log_picture(
        tuning.parallel_coordinates(result.trials, searched, METRIC),
        "search/parallel_coordinates.png",
    )
    if result.importances:
        log_picture(
            tuning.hyperparameter_importances(result.importances, METRIC),
            "search/importances.png",
        )
    for network in result.networks:
        _log_cutoffs(network)


def log_interactive_plots(study: optuna.Study, space: AnySpace) -> None:
    """Logs one page with the interactive plots of a search."""
    mlflow.log_text(plots_page(study, space, METRIC), "search/plots.html")


def log_probe(curve: pd.DataFrame, folder: str) -> None:
    """Logs the curve of the layer probe, a table as in `medtl.tuning.linear_probe.Probe`."""
    log_table(curve, f"{folder}/layer_probe.csv")
    log_picture(tuning.layer_probe(curve), f"{folder}/layer_probe.png")


def _log_cutoffs(network: NetworkTrials) -> None:
    """Logs the scores against the cut-offs, if any trial of the network was completed."""
    trials = network.trials
    curve = trials.loc[trials["state"] == "complete", ["cutoff", "score"]]
    if len(curve):
        figure = tuning.score_against_cutoff({"trials": curve}, network.cutoffs, METRIC)
        log_picture(figure, f"{network.folder}/score_against_cutoff.png")
