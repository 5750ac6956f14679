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
RATES = "cell/rates.csv"  # candidates for the learning rate, where it was chosen
NUMBERS = ("valid_error", "best_epoch", "seconds", "place", "trained_parameters", "trained_flops",
           "trained_share")  # fmt: skip
PROBABILITY = "probability_"  # begins the columns of the classes


def log_outcome(
    outcome: Outcome, cases: Cases, names: Sequence[str], scores: Mapping[str, Interval]
) -> None:
    """Logs in the active run what a cell came to, and its test scores with their bounds.

    `names` [N] tell the test cases apart, whatever their files are called.
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
    """What the cell of this key came to, in a run of this or an earlier study; None if it did not.

    A cell whose study was stopped is moved under `parent`, the run of the study that goes on.
    """
    found = _search(f"tags.`{KEY_TAG}` = '{key}' and attributes.status = 'FINISHED'")
    for run in found:
        outcome = _outcome(run, cases, names)
        if outcome is not None:
            _adopt(run, parent)
            return outcome
    return None


def cut_off_cell(name: str, parent: str) -> str | None:
    """Returns the run of the cell of this name that stands RUNNING below `parent`, if one does."""
    found = _search(f"tags.`{PARENT_TAG}` = '{parent}' and attributes.status = 'RUNNING'")
    return next((run.info.run_id for run in found if run.info.run_name == name), None)


def _outcome(run: Run, cases: Cases, names: Sequence[str]) -> Outcome | None:
    """Returns the outcome in a run; None where its artifacts are gone or are of other cases."""
    metrics, place = run.data.metrics, f"runs:/{run.info.run_id}"
    try:
        table = _table(f"{place}/{PROBABILITIES}")
        history = _table(f"{place}/{HISTORY}").astype(float).astype({"epoch": int})
        numbers = {name: metrics[name] for name in NUMBERS}
        columns = [f"{PROBABILITY}{name}" for name in cases.classes]
        probabilities = table[columns].to_numpy().astype(float)
        same = list(table["case"]) == list(names)
        valid_auroc = metrics["best_valid_auroc"]
        rates = _rates(f"{place}/{RATES}") if "rates" in run.data.params else ()
    except (MlflowException, OSError, ValueError, KeyError):
        return None
    if not same:
        return None
    whole = ("best_epoch", "place", "trained_parameters", "trained_flops")
    numbers |= {name: int(numbers[name]) for name in whole}
    # cells of earlier releases have their rate as a parameter only
    lr = float(metrics.get("lr", run.data.params.get("lr", 0.0)))
    return Outcome(
        probabilities,
        history,
        valid_auroc=valid_auroc,
        run_id=run.info.run_id,
        lr=lr,
        rates=rates,
        **numbers,
    )


def _rates(uri: str) -> tuple[TriedRate, ...]:
    values = _table(uri).replace("", "nan").astype(float).astype({"best_epoch": int})
    return tuple(TriedRate(**row) for row in values.to_dict("records"))


def _table(uri: str) -> pd.DataFrame:
    """A table as texts: pandas' own reading of numbers is not exact to the last bit everywhere."""
    path = mlflow.artifacts.download_artifacts(artifact_uri=uri)
    return as_written(pd.read_csv(path, dtype=str, keep_default_na=False))


def _adopt(run: Run, parent: str) -> None:
    """Moves a cell under `parent`, unless its own study came to its end.

    One of another user's that this user may only read stays where it is.
    """
    client, before = MlflowClient(), run.data.tags.get(PARENT_TAG)
    try:
        if before not in (None, parent) and client.get_run(before).info.status != "FINISHED":
            client.set_tag(run.info.run_id, PARENT_TAG, parent)
    except MlflowException as error:
        if not is_refused(error):
            raise


def _search(asked: str) -> list[Run]:
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, asked))
