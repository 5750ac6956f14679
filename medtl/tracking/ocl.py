"""The OCL dictionary in MLflow: an artifact of each finished search, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.search.dictionary import Description, Entry

ENTRY_FILE = "search/ocl_entry.json"
ENTRY_TAG = "medtl.ocl"  # on runs that hold entries: the best cut-off of each
MOST_ENTRIES = 500  # newest searches that are read


def log_entries(entries: Sequence[Entry]) -> None:
    """Adds what the active run's search found to the dictionary, an entry an architecture."""
    values = [dataclasses.asdict(entry) for entry in entries]
    for each in values:
        del each["run_id"]
    mlflow.log_dict({"entries": values}, ENTRY_FILE)
    mlflow.set_tag(ENTRY_TAG, ", ".join(entry.cutoff for entry in entries))


def known_entries() -> list[Entry]:
    """All entries of this tracking store, the newest search first."""
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(
        experiments,
        f"tags.`{ENTRY_TAG}` != '' and attributes.status = 'FINISHED'",
        max_results=MOST_ENTRIES,
    )
    return [entry for run in runs for entry in _entries(run.info.run_id)]


def _entries(run_id: str) -> list[Entry]:
    """The entries of a run; none where its artifacts are gone or of another version."""
    try:
        kept = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/{ENTRY_FILE}"))
        # a search of one architecture used to write its entry bare
        return [_entry(values, run_id) for values in kept.get("entries", [kept])]
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return []


def _entry(values: dict[str, object], run_id: str) -> Entry:
    description = {name: tuple(each) for name, each in values.pop("description").items()}
    return Entry(**values, description=Description(**description), run_id=run_id)
