"""Runs of a comparison's cells in MLflow, found again by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.evaluation.jackknife import Interval
from medtl.evaluation.model_comparison import Cases, Outcome, TriedRate
from medtl.reporting.csv_export import as_written
from medtl.tracking.artifacts import log_intervals, log_table
from medtl.tracking.run_ownership import PARENT_TAG
from medtl.tracking.store import is_refused

KEY_TAG = "medtl.cell"  # on a cell's run: key of all that its numbers depend on
PROBABILITIES = "cell/probabilities.csv"
HISTORY = "cell/history.csv"
RATES = "cell/rates.csv"  # candidates for the learning rate, if it was chosen
NUMBERS = ("valid_error", "best_epoch", "seconds", "place", "trained_parameters", "trained_flops",
           "trained_share")  # fmt: skip
PROBABILITY = "probability_"  # prefix of the columns of the classes


def log_outcome(
    outcome: Outcome, cases: Cases, names: Sequence[str], scores: Mapping[str, Interval]
) -> None:
    """Logs the result of a cell and its test scores with intervals in the active run.

    `names` [N] identify the test cases independently of their file names.
    """
    mlflow.log_metrics(
        {
            "best_valid_auroc": outcome.valid_auroc,
            "lr": outcome.lr,
            **{name: getattr(outcome, name) for name in NUMBERS},
        }
    )
    log_intervals({f"test_{metric}": each for metric, each in scores.items()})
    table = pd.DataFrame({"case": names, "label": [cases.classes[each] for each in cases.labels]})
    for index, name in enumerate(cases.classes):
        table[f"{PROBABILITY}{name}"] = outcome.probabilities[:, index]
    log_table(table, PROBABILITIES)
    log_table(outcome.history, HISTORY)
    if outcome.rates:
        candidates = ",".join(f"{each.lr:g}" for each in outcome.rates)
        mlflow.log_params({"lr": outcome.lr, "rates": candidates})
        log_table(pd.DataFrame([dataclasses.asdict(each) for each in outcome.rates]), RATES)


def finished_cell(key: str, cases: Cases, names: Sequence[str], parent: str) -> Outcome | None:
    """Returns the result of the cell with this key from a finished run of any study, or None.

    The run of a cell whose study was stopped is moved under `parent`, the run of the new study.
    """
    found = _search(f"tags.`{KEY_TAG}` = '{key}' and attributes.status = 'FINISHED'")
    for run in found:
        outcome = _outcome(run, cases, names)
        if outcome is not None:
            _adopt(run, parent)
            return outcome
    return None


def unfinished_cell_run(name: str, parent: str) -> str | None:
    """Returns the id of the run below `parent` with this name and status RUNNING, or None."""
    found = _search(f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'")
    return next((run.info.run_id for run in found if run.info.run_name == name), None)


def _outcome(run: Run, cases: Cases, names: Sequence[str]) -> Outcome | None:
    """Returns the result in a run; None if artifacts are missing or its test cases are others."""
    metrics, uri = run.data.metrics, f"runs:/{run.info.run_id}"
    try:
        table = _table(f"{uri}/{PROBABILITIES}")
        if list(table["case"]) != list(names):
            return None
        columns = [f"{PROBABILITY}{name}" for name in cases.classes]
        return Outcome(
            probabilities=table[columns].to_numpy().astype(float),
            history=_table(f"{uri}/{HISTORY}").astype(float).astype({"epoch": int}),
            valid_auroc=metrics["best_valid_auroc"],
            valid_error=metrics["valid_error"],
            best_epoch=int(metrics["best_epoch"]),
            seconds=metrics["seconds"],
            place=int(metrics["place"]),
            trained_parameters=int(metrics["trained_parameters"]),
            trained_flops=int(metrics["trained_flops"]),
            trained_share=metrics["trained_share"],
            run_id=run.info.run_id,
            # cells of earlier releases have their learning rate as a parameter only
            lr=float(metrics.get("lr", run.data.params.get("lr", 0.0))),
            rates=_rates(f"{uri}/{RATES}") if "rates" in run.data.params else (),
        )
    except (MlflowException, OSError, ValueError, KeyError):
        return None


def _rates(uri: str) -> tuple[TriedRate, ...]:
    values = _table(uri).replace("", "nan").astype(float).astype({"best_epoch": int})
    return tuple(TriedRate(**row) for row in values.to_dict("records"))


def _table(uri: str) -> pd.DataFrame:
    """Reads a table as strings, because pandas' parsing of numbers is not exact to the last bit."""
    path = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    return as_written(pd.read_csv(path, dtype=str, keep_default_na=False))


def _adopt(run: Run, parent: str) -> None:
    """Moves a cell's run under `parent`, unless its own study is finished.

    A run without permission to write stays where it is.
    """
    client, before = MlflowClient(), run.data.tags.get(PARENT_TAG)
    try:
        if before not in (None, parent) and client.get_run(before).info.status != "FINISHED":
            client.set_tag(run.info.run_id, PARENT_TAG, parent)
    except MlflowException as error:
        if not is_refused(error):
            raise


def _search(condition: str) -> list[Run]:
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, condition))
