"""Logging of a verdict, by the gate or by hand: winner, difference and data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from medtl.evaluation.jackknife import Difference, Interval
from medtl.reporting.markdown import plain
from medtl.reporting.model_card import BELOW_TAG
from medtl.reporting.plots import training_comparison
from medtl.tracking.artifacts import log_picture, log_table
from medtl.tracking.promotion_gate import Contest, Verdict
from medtl.tracking.registry import DATA_TAG
from medtl.tracking.runs import nested_run

KIND = "promote"


@contextmanager
def promotion_run(model_name: str, confidence: float, seed: int) -> Iterator[None]:
    """Yields a run for a verdict, below that of its training or search."""
    params = {"model_name": model_name, "confidence": confidence, "seed": seed}
    with nested_run(f"{KIND} {model_name}", {"medtl.kind": KIND}, params):
        yield


def log_verdict(model_name: str, verdict: Verdict) -> None:
    """Logs a verdict in the active run: tags, metrics, `verdict.json`, and the two side by side."""
    version = MlflowClient().get_model_version(model_name, str(verdict.version))
    tags = {
        "medtl.model": f"models:/{model_name}/{verdict.version}",
        "medtl.version": verdict.version,
        "medtl.champion": verdict.champion,
        "medtl.champion_before": "none" if verdict.before is None else verdict.before,
        "medtl.promoted": str(verdict.promoted).lower(),
        "mlflow.note.content": plain(f"{model_name}: {verdict.reason}"),
    }
    tags |= {name: version.tags[name] for name in (DATA_TAG, BELOW_TAG) if name in version.tags}
    mlflow.set_tags(tags)
    mlflow.log_dict(verdict.record(model_name), "verdict.json")
    if verdict.contest is not None:
        _log_contest(verdict, verdict.contest)


def _log_contest(verdict: Verdict, contest: Contest) -> None:
    rows: dict[str, tuple[str, Interval | Difference]] = {
        "challenger_auroc": (f"challenger, version {verdict.version}", contest.challenger_auroc),
        "champion_auroc": (f"champion, version {verdict.before}", contest.champion_auroc),
        "auroc_difference": ("challenger less champion", contest.difference),
    }
    metrics: dict[str, float] = {
        "cases": contest.cases,
        "left_out": contest.left_out,
        "confidence_reached": contest.difference.confidence,
        "confidence_asked": contest.asked,
        "look": contest.look,
    }
    for metric, (_, found) in rows.items():
        metrics |= {metric: found.value, f"{metric}_low": found.low, f"{metric}_high": found.high}
    mlflow.log_metrics({name: value for name, value in metrics.items() if np.isfinite(value)})
    table = pd.DataFrame(
        [(name, found.value, found.low, found.high) for name, found in rows.values()],
        columns=["name", "value", "low", "high"],
    )
    # each bound of the difference is at the required level, both together at twice that less one
    table["level"] = [0.95, 0.95, 2 * contest.asked - 1]
    log_table(table, "gate/contest.csv")
    title = f"Challenger and champion: AUROC on the same {contest.cases} cases"
    figure = training_comparison.values_with_intervals(table.iloc[:2], title, "AUROC", zero=False)
    log_picture(figure, "gate/contest.png")
