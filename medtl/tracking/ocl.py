"""The OCL dictionary in MLflow: an artifact of each finished search, and nowhere else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.search.dictionary import Description, Entry

ENTRY_FILE = "search/ocl_entry.json"
ENTRY_TAG = "medtl.ocl"  # on runs that hold entries: the best cut-off of each
MOST_ENTRIES = 500  # newest searches that are read
AT_ONCE = 8  # of them: over a network each waits mostly for the server


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
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [entry for entries in threads.map(_entries, runs) for entry in entries]


def _entries(run: Run) -> list[Entry]:
    """The entries of a run; none where its artifacts are gone or of another version."""
    try:
        # by runs:/ID a server would be asked twice as often
        kept = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{ENTRY_FILE}"))
        # a search of one architecture used to write its entry bare
        return [_entry(values, run.info.run_id) for values in kept.get("entries", [kept])]
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return []


def _entry(values: dict[str, object], run_id: str) -> Entry:
    description = {name: tuple(each) for name, each in values.pop("description").items()}
    return Entry(**values, description=Description(**description), run_id=run_id)
