"""Sources of weights in a search, compared by the best trial of each on the validation split."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial

from medtl.data.dataset import Dataset
from medtl.evaluation.confidence_intervals import mean_score, paired_difference
from medtl.evaluation.jackknife import Interval
from medtl.inference.decisions import calibrated, presence
from medtl.pipeline.setup import Origin
from medtl.tracking.artifacts import log_table
from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool, PooledBackbone
from medtl.tuning.linear_probe import Probe
from medtl.tuning.search_space import NetworkName
from medtl.tuning.source_distance import Beginning, source_distances

VALID_LOGITS = "search/valid_logits.csv"  # artifact of a trial where the weights are searched
SOURCES = "search/sources.csv"
DISTANCES = "search/source_distances.csv"
METRIC = "auroc"
COLUMNS = ("weights", "architecture", "cutoff", "trial", "valid_auroc", "valid_auroc_low",
           "valid_auroc_high", "behind", "behind_low", "behind_high", "confidence", "trials",
           "probe_auroc", "probe_cutoff", "source_data", "distance")  # fmt: skip


@dataclass(frozen=True)
class SourceComparison:
    """Sources of weights, compared.

    Attributes:
        table: a row a source, the best first: `weights`; of its best trial `architecture`,
            `cutoff`, `trial`, `valid_auroc` with `_low` and `_high`; `behind`, the validation AUROC
            of the best source less its own on the same cases, with `_low`, `_high` and
            `confidence`; `trials` that were completed; the best `probe_auroc` of its network and
            the `probe_cutoff`; `source_data` and `distance` of the data that it was pretrained on,
            where that is known.
        distances: see `medtl.tuning.source_distance.source_distances`.
    """

    table: pd.DataFrame
    distances: pd.DataFrame

    def lines(self) -> list[str]:
        """Formats the result: the best source, each of the others, and a caution."""
        best, *others = self.table.to_dict("records")
        lines = [
            f"weights {best['weights']} are the best on validation: AUROC "
            f"{_bounds(best, 'valid_auroc')} with {_place(best)}; {_described(best)}"
        ]
        for each in others:
            if each["trials"] == 0:
                lines.append(f"{each['weights']}: no trial was completed; {_described(each)}")
            elif np.isnan(each["behind"]):
                lines.append(
                    f"{each['weights']}: AUROC {each['valid_auroc']:.3f}, without an interval: its "
                    f"trial logged no scores; {_described(each)}"
                )
            else:
                unclear = "" if each["behind_low"] > 0 else ", which these cases cannot tell apart"
                lines.append(
                    f"{each['weights']}: {_bounds(each, 'behind')} below with {_place(each)}"
                    f"{unclear}; {_described(each)}"
                )
        if len(self.table) > 1:
            lines.append(
                "the validation split also chose the trial of each, so differences are optimistic"
            )
        return lines

    def log(self) -> None:
        """Logs the tables in the active run."""
        log_table(self.table, SOURCES)
        if len(self.distances):
            log_table(self.distances, DISTANCES)


def compare_sources(
    study: optuna.Study, pool: BackbonePool, probed: Mapping[NetworkName, Probe], seed: int
) -> SourceComparison:
    """Compares the best completed trial of each source, by the logits that the trials logged."""
    distances = source_distances([_beginning(pool, each) for each in pool.all], seed)
    completed = sorted(studies.completed(study), key=studies.score_of, reverse=True)
    candidates = {trial.number: pool.space.candidate(trial.params) for trial in completed}
    by_source: dict[str, list[FrozenTrial]] = {}
    for trial in completed:
        by_source.setdefault(candidates[trial.number].network.weights, []).append(trial)
    rows: list[dict[str, object]] = []
    leading: np.ndarray | None = None
    for own in by_source.values():
        best = own[0]
        candidate, scores = candidates[best.number], _probabilities(best, pool.dataset)
        if not rows:
            leading = scores
        rows.append(
            {
                **_facts(pool.of(candidate), probed, distances),
                "cutoff": candidate.cutoff,
                "trial": best.number,
                "trials": len(own),
                "valid_auroc": studies.score_of(best),
                **_intervals(pool.dataset, scores, leading, seed),
            }
        )
    for each in pool.all:
        if each.name.weights not in by_source:
            by_source[each.name.weights] = []
            rows.append({**_facts(each, probed, distances), "trials": 0})
    return SourceComparison(pd.DataFrame(rows, columns=list(COLUMNS)), distances)


def log_valid_logits(logits: np.ndarray, classes: Sequence[str]) -> None:
    """Logs the logits [N, K] of the validation split in the active run of a trial."""
    log_table(pd.DataFrame(logits, columns=list(classes)), VALID_LOGITS)


def _beginning(pool: BackbonePool, entrant: PooledBackbone) -> Beginning:
    return Beginning(str(entrant.name), Origin.of(entrant.settings), lambda: pool.transfer(entrant))


def _probabilities(trial: FrozenTrial, dataset: Dataset) -> np.ndarray | None:
    """Returns uncalibrated probabilities [N, K] of the validation split; None if not logged."""
    try:
        uri = f"runs:/{trial.user_attrs[studies.RUN_ID]}/{VALID_LOGITS}"
        logits = pd.read_csv(mlflow.artifacts.download_artifacts(uri)).to_numpy(np.float32)
    except (KeyError, MlflowException, OSError, ValueError):
        return None
    return presence(logits, 1.0) if dataset.multi_label else calibrated(logits, 1.0)


def _intervals(
    dataset: Dataset, own: np.ndarray | None, leading: np.ndarray | None, seed: int
) -> dict[str, float]:
    """Returns the bounds of a source's score, and of its difference to that of the best."""
    if own is None or leading is None:
        return {}
    valid = dataset.splits["valid"]
    labels, groups = dataset.labels[valid], dataset.groups[valid]
    score = mean_score(labels, [own], groups, METRIC, seed)
    behind = paired_difference(labels, own, leading, groups, METRIC, seed)
    return {
        "valid_auroc_low": score.low,
        "valid_auroc_high": score.high,
        "behind": behind.value,
        "behind_low": behind.low,
        "behind_high": behind.high,
        "confidence": behind.confidence,
    }


def _facts(
    entrant: PooledBackbone, probed: Mapping[NetworkName, Probe], distances: pd.DataFrame
) -> dict[str, object]:
    """Returns the columns of a source that need no trial, for one of its networks."""
    curve, name = probed[entrant.name].curve, str(entrant.name)
    best = curve.loc[curve["score"].idxmax()]
    own = distances[(distances["seen_by"] == name) & (distances["source"] == name)]
    return {
        "weights": entrant.name.weights,
        "architecture": entrant.architecture,
        "probe_auroc": best["score"],
        "probe_cutoff": best["cutoff"],
        "source_data": ", ".join(own["data"]),
        "distance": own["distance"].mean(),
    }


def _bounds(row: Mapping[Hashable, Any], name: str) -> str:
    return str(Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]))


def _place(row: Mapping[Hashable, Any]) -> str:
    return f"{row['architecture']} trained from {row['cutoff']} on"


def _described(row: Mapping[Hashable, Any]) -> str:
    """Formats the layer probe and the distance of a source."""
    probe = f"layer probe {row['probe_auroc']:.3f} at {row['probe_cutoff']}"
    if not row["source_data"]:
        return probe
    return f"{probe}, distance {row['distance']:.2f} from {row['source_data']}"
