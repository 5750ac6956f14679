"""The OCL dictionary in MLflow: an artifact of each finished search, and nowhere else."""

from __future__ import annotations

import dataclasses
import json

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.search.dictionary import Description, Entry

ENTRY_FILE = "search/ocl_entry.json"
ENTRY_TAG = "medtl.ocl"  # on runs that hold an entry: their best cut-off
MOST_ENTRIES = 500  # newest searches that are read


def log_entry(entry: Entry) -> None:
    """Adds what the active run's search found to the dictionary."""
    values = dataclasses.asdict(entry)
    del values["run_id"]
    mlflow.log_dict(values, ENTRY_FILE)
    mlflow.set_tag(ENTRY_TAG, entry.cutoff)


def known_entries() -> list[Entry]:
    """All entries of this tracking store, the newest search first."""
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        f"tags.`{ENTRY_TAG}` != '' and attributes.status = 'FINISHED'",
        max_results=MOST_ENTRIES,
    )
    entries = (_entry(run.info.run_id) for run in runs)
    return [entry for entry in entries if entry is not None]


def _entry(run_id: str) -> Entry | None:
    """The entry of a run; None where its artifacts are gone or of another version."""
    try:
        values = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{ENTRY_FILE}"))
        description = {name: tuple(each) for name, each in values.pop("description").items()}
        return Entry(**values, description=Description(**description), run_id=run_id)
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return None
