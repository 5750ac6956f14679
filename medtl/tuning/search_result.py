"""Result of a finished search: its trials as a table, the best ones, and parameter importances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from medtl.tuning import study as studies
from medtl.tuning.backbone_pool import BackbonePool
from medtl.tuning.search_space import AnyCandidate, AnySpace, NetworkName

STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@dataclass(frozen=True)
class NetworkTrials:
    """Trials of one network of a search.

    Attributes:
        trials: rows of `table`.
        cutoffs: all its cut-offs in forward order.
        folder: artifact folder of its plots.
    """

    trials: pd.DataFrame
    cutoffs: tuple[str, ...]
    folder: str


@dataclass(frozen=True)
class SearchResult:
    """Result of a finished search.

    Attributes:
        trials: all trials, as `table` returns them.
        networks: the same, by network.
        importances: share of each parameter in the variance of the score.
        best: the best candidate of each network with its score, the best of all first.
        best_trial: number of the best trial.
        finished: number of completed and pruned trials.
    """

    trials: pd.DataFrame
    networks: tuple[NetworkTrials, ...]
    importances: Mapping[str, float]
    best: Mapping[AnyCandidate, float]
    best_trial: int
    finished: int

    @property
    def candidate(self) -> AnyCandidate:
        """Best candidate."""
        return next(iter(self.best))

    @property
    def score(self) -> float:
        """Validation AUROC of the best candidate."""
        return self.best[self.candidate]

    def slowest(self) -> str:
        """Describes the slowest trial, and how many were pruned."""
        row = self.trials.loc[self.trials["seconds"].idxmax()]
        pruned = int((self.trials["state"] == "pruned").sum())
        return (
            f"slowest trial {row['number']} ({row['seconds']:.0f} s, cut at {row['cutoff']}), "
            f"{pruned} of {len(self.trials)} pruned"
        )


def search_result(study: optuna.Study, backbone_pool: BackbonePool, seed: int) -> SearchResult:
    """Computes the result of a study with completed trials."""
    trials = table(study, backbone_pool.space)
    networks = []
    for each in backbone_pool.all:
        own = trials
        for name, value in each.name.params().items():
            own = own[own[name] == value]
        networks.append(NetworkTrials(own, each.space.cutoffs, each.folder))
    return SearchResult(
        trials,
        tuple(networks),
        importances(study, seed),
        best_of_each(study, backbone_pool.space),
        study.best_trial.number,
        len(studies.finished(study)),
    )


def best_of_each(study: optuna.Study, space: AnySpace) -> dict[AnyCandidate, float]:
    """Returns the best completed candidate of each network with its score, best first."""
    ranked = sorted(studies.completed(study), key=studies.score_of, reverse=True)
    best: dict[NetworkName, tuple[AnyCandidate, float]] = {}
    for trial in (study.best_trial, *ranked):
        candidate = space.candidate(trial.params)
        best.setdefault(candidate.network, (candidate, studies.score_of(trial)))
    return dict(best.values())


def table(study: optuna.Study, space: AnySpace) -> pd.DataFrame:
    """Returns one row a finished trial, in order, without those killed during sampling.

    Columns: `number`, `state` (complete, pruned, failed), `score` (validation AUROC; of a pruned
    trial its last; with folds the mean over them, and `std` their standard deviation), the
    candidate's own, `cutoff` (categories in forward order), `epochs` (folds where there are any),
    `seconds`, `error`.
    """
    rows, drawn = [], space.distributions().keys()
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.WAITING, TrialState.RUNNING) or trial.params.keys() != drawn:
            continue
        seen = trial.intermediate_values
        rows.append(
            {
                "number": trial.number,
                "state": STATES[trial.state],
                "score": trial.value if trial.value is not None else seen.get(max(seen, default=0)),
                **_spread(trial),
                **space.candidate(trial.params).params(),
                "epochs": max(seen, default=0),
                "seconds": trial.duration.total_seconds() if trial.duration else None,
                "error": trial.user_attrs.get(studies.ERROR, ""),
            }
        )
    trials = pd.DataFrame(rows)
    trials["score"] = trials["score"].astype(float)
    trials["cutoff"] = pd.Categorical(trials["cutoff"], space.cutoffs, ordered=True)
    return trials


def _spread(trial: FrozenTrial) -> dict[str, float]:
    """Returns the standard deviation over folds of a cross-validated trial, as `std`."""
    attributes = trial.user_attrs
    return {"std": attributes[studies.SPREAD]} if studies.SPREAD in attributes else {}


def importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """Computes the share of each parameter in the variance of the score.

    By fANOVA (Hutter et al. 2014). Empty with fewer than four completed trials, or equal scores.
    """
    values = {trial.value for trial in studies.completed(study)}
    if len(studies.completed(study)) < 4 or len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {"cutoff" if name == "depth" else name: share for name, share in shares.items()}
