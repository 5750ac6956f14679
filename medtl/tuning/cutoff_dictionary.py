"""OCL dictionary: best cut-offs of finished searches, and similar data sets.

Boit & Zeng 2019 (Dakota State Annual Research Symposium 16) name such an index of learned
representations as future work. The description of a data set and the distance are ours.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from medtl.tracking.hidden_tags import names_of
from medtl.tuning.search_space import Param

LARGEST = 512  # numbers of a description; longer features are averaged in equal groups


@dataclass(frozen=True)
class Description:
    """Description of a data set by a backbone: mean and standard deviation of pooled features."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]

    @classmethod
    def of(cls, features: np.ndarray) -> Description:
        """Describes features [N, F], rounded to four digits."""
        runs = np.array_split(np.arange(features.shape[1]), min(LARGEST, features.shape[1]))
        grouped = np.stack([features[:, run].mean(axis=1) for run in runs], axis=1)
        mean, spread = grouped.mean(axis=0), grouped.std(axis=0)
        mean, spread = (
            tuple(float(f"{value:.4g}") for value in values) for values in (mean, spread)
        )
        return cls(mean, spread)


@dataclass(frozen=True)
class Entry:
    """Result of one architecture in a finished search."""

    architecture: str
    weights: str
    backbone: str  # digest of the weights; descriptions of other backbones are not comparable
    data: str
    fingerprint: str
    cutoff: str
    recipe: dict[str, Param]  # optimizer and learning rate, or the classical classifier
    valid_auroc: float
    curve: dict[str, float]  # cut-off to the layer probe's score
    description: Description
    run_id: str = ""


@dataclass(frozen=True)
class Neighbour:
    """Known data set and its distance."""

    entry: Entry
    distance: float


def distance(one: Description, other: Description) -> float:
    """Computes the distance of two data sets by the features of one backbone, 0 if equal.

    The square root of the Frechet distance of two Gaussians with independent features (Dowson &
    Landau 1982), divided by the overall spread, so that it has no unit.

    >>> distance(Description((0.0,), (1.0,)), Description((2.0,), (1.0,)))
    2.0
    """
    means = np.subtract(one.mean, other.mean)
    spreads = np.subtract(one.spread, other.spread)
    scale = np.sum(np.square(one.spread)) + np.sum(np.square(other.spread))
    return float(np.sqrt((means @ means + spreads @ spreads) / max(scale / 2, 1e-12)))


def nearest(
    description: Description, backbone: str, entries: Sequence[Entry], count: int
) -> list[Neighbour]:
    """Returns the `count` nearest known data sets of the same backbone, nearest first.

    Of several searches on the same data, the one with the best score counts.
    """
    best: dict[str, Entry] = {}
    for entry in entries:
        known = best.get(entry.fingerprint)
        if entry.backbone == backbone and (known is None or entry.valid_auroc > known.valid_auroc):
            best[entry.fingerprint] = entry
    found = [Neighbour(entry, distance(description, entry.description)) for entry in best.values()]
    return sorted(found, key=lambda neighbour: neighbour.distance)[:count]


ENTRY_FILE = "search/ocl_entry.json"
ENTRY_TAG = "mlflow.medtl.ocl"  # hidden, on runs that hold entries: the best cut-off of each
MOST_ENTRIES = 500  # newest searches that are read
AT_ONCE = 8  # threads that read them, which mostly wait for the server


def log_entries(entries: Sequence[Entry]) -> None:
    """Adds the entries of the active run's search to the dictionary."""
    values = [dataclasses.asdict(entry) for entry in entries]
    for each in values:
        del each["run_id"]
    mlflow.log_dict({"entries": values}, ENTRY_FILE)
    mlflow.set_tag(ENTRY_TAG, ", ".join(entry.cutoff for entry in entries))


def known_entries() -> list[Entry]:
    """Returns all entries of this tracking store, the newest search first."""
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = [
        run
        for name in names_of(ENTRY_TAG)
        for run in client.search_runs(
            experiments,
            f"tags.`{name}` != '' and attributes.status = 'FINISHED'",
            max_results=MOST_ENTRIES,
        )
    ]
    runs = sorted(runs, key=lambda run: run.info.start_time, reverse=True)[:MOST_ENTRIES]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [entry for entries in threads.map(_entries, runs) for entry in entries]


def _entries(run: Run) -> list[Entry]:
    """Returns the entries of a run; none if its artifacts are missing or of another version."""
    try:
        # runs:/ID would take twice as many requests
        kept = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{ENTRY_FILE}"))
        # earlier versions wrote a single entry without a list
        return [_entry(values, run.info.run_id) for values in kept.get("entries", [kept])]
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return []


def _entry(values: dict[str, Any], run_id: str) -> Entry:
    # values as in the JSON of the artifact
    description = {name: tuple(each) for name, each in values.pop("description").items()}
    return Entry(**values, description=Description(**description), run_id=run_id)
