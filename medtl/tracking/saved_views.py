"""Saved views of MLflow's run list: columns that a reader of a search looks for, by name.

MLflow's UI keeps a view as a tag of the experiment, lists it under Views, and opens it by the
parameter `viewStateShareKey` of the address. Releases without named views read the same fields
beside the name.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping

from mlflow.tracking import MlflowClient

TAG = "mlflow.sharedViewState."
TAG_LENGTH = 250  # most characters of a tag's name in MLflow
RUNS, RUNS_NAME = "medtl-runs", "scores and settings (medtl)"
SCORE = "metrics.`best_valid_auroc`"
# columns with their widths in pixels: those that matter fit beside the panel of the assistant
SETTINGS = {"tags.`medtl.cutoff`": 100, "tags.`medtl.optimizer`": 120, "tags.`medtl.lr`": 90}
NETWORK = {"tags.`medtl.architecture`": 130}
RUNS_COLUMNS = {"metrics.`test_auroc`": 90, SCORE: 120, **SETTINGS, **NETWORK}
TRIALS_COLUMNS = {SCORE: 120, **SETTINGS, "tags.`medtl.state`": 100, "metrics.`best_epoch`": 100}


def save_runs_view(experiment_id: str, tags: Mapping[str, str]) -> None:
    """Saves the view of all runs, unless the experiment has it among its `tags`."""
    if TAG + RUNS not in tags:
        _save(experiment_id, RUNS, RUNS_NAME, RUNS_COLUMNS, {})


def save_trials_view(experiment_id: str, study: str, several: bool) -> str:
    """Saves the view of the trials of a study, the best first; returns its key.

    `several` adds columns of the architecture and its weights.
    """
    key = re.sub(r"[^\w.-]", "-", f"medtl-{study}", flags=re.ASCII)[: TAG_LENGTH - len(TAG)]
    columns = TRIALS_COLUMNS | (NETWORK | {"tags.`medtl.weights`": 130} if several else {})
    quoted = f'"{study}"' if "'" in study else f"'{study}'"
    listed = {
        "searchFilter": f"tags.`medtl.kind` = 'trial' and tags.`medtl.study` = {quoted}",
        "orderByKey": SCORE,
        "orderByAsc": False,
    }
    _save(experiment_id, key, f"trials of {study}", columns, listed)
    return key


def _save(
    experiment_id: str,
    key: str,
    name: str,
    columns: Mapping[str, int],
    listed: Mapping[str, object],
) -> None:
    """Saves a view with `columns` of the runs that are `listed`."""
    state = {
        **listed,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": dict(columns),
    }
    now = int(1000 * time.time())
    view = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    MlflowClient().set_experiment_tag(experiment_id, TAG + key, json.dumps({**view, **state}))
