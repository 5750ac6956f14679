"""Comparison of many models on the same test cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medtl.evaluation.comparison_baselines import Beside
from medtl.evaluation.confidence_intervals import mean_difference, mean_score, measure
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import OVERALL


@dataclass(frozen=True)
class Cases:
    """Test cases that all models score.

    Attributes:
        labels: int [N], index into `classes`.
        groups: [N], any codes; cases of one group are dependent.
        classes: K names.
        unit: sampling unit of intervals, see `Dataset.unit`.
    """

    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    unit: str = "patients"


@dataclass(frozen=True)
class TriedRate:
    """A candidate for a learning rate, and its scores on the validation split.

    Attributes:
        lr: learning rate.
        valid_auroc: of its best epoch; NaN where the training failed.
        valid_loss: of the same epoch.
        best_epoch: from 1; 0 where the training failed.
        seconds: of its training.
    """

    lr: float
    valid_auroc: float
    valid_loss: float
    best_epoch: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """Result of a training.

    Attributes:
        probabilities: [N, K] of the test cases, calibrated.
        history: a row an epoch, as `learning_curves` takes it.
        valid_auroc: of the best epoch, on the validation split.
        valid_error: its standard error, over patients.
        best_epoch: from 1.
        seconds: of training and of scoring.
        place: of the cut, in forward order; larger is deeper.
        trained_parameters: how many numbers the gradient moved.
        trained_flops: operations for one image, in the forward pass, that came after the cut.
        trained_share: their share, 0 to 1, of all the network's.
        run_id: where it is logged.
        lr: learning rate; 0 where there is none, as in a hybrid or a head that was solved.
        rates: candidates among which `lr` was chosen in this training; none where it was given.
    """

    probabilities: np.ndarray
    history: pd.DataFrame
    valid_auroc: float
    valid_error: float
    best_epoch: int
    seconds: float
    place: int
    trained_parameters: int
    trained_flops: int
    trained_share: float
    run_id: str
    lr: float = 0.0
    rates: tuple[TriedRate, ...] = ()


@dataclass(frozen=True)
class CellResult:
    """One cell of a study; it has an outcome, or an error.

    Repeats under several seeds have one `arm`. `series` is its curve among those of its
    `architecture`; `settings` are shown as they are.
    """

    name: str
    arm: str
    architecture: str
    series: str
    cutoff: str
    fraction: float
    seed: int
    settings: Mapping[str, object]
    outcome: Outcome | None = None
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """The numbers of a study.

    Attributes:
        cases: the test cases.
        contenders: in the order of the report, those that failed among them.
        pairs: names of contenders (a, b) that both have an outcome.
        metric: the score that is compared, one of `medtl.evaluation.metrics.OVERALL`.
        scores: name of a contender to metric to interval.
        arms: a row an arm that has an outcome: `arm`, `architecture`, `series`, `cutoff`,
            `place`, `fraction`, `seeds` (how many), `score`, `low`, `high` of the metric, and the
            means of `valid_auroc`, `valid_error`, `seconds`, `trained_parameters`,
            `trained_flops`, `trained_share`.
        differences: a row a pair of arms: `a`, `b`, `difference` (b less a), `low`, `high`,
            `confidence` (that b is better), `seeds`.
        beside: baselines, which are no contenders.
    """

    cases: Cases
    cell_results: tuple[CellResult, ...]
    pairs: tuple[tuple[str, str], ...]
    metric: str
    scores: dict[str, dict[str, Interval]]
    arms: pd.DataFrame
    differences: pd.DataFrame
    beside: Beside = field(default_factory=Beside)

    @property
    def finished(self) -> list[CellResult]:
        """The contenders that have an outcome."""
        return [each for each in self.cell_results if each.outcome is not None]

    @property
    def failed(self) -> list[CellResult]:
        """Those that have none."""
        return [each for each in self.cell_results if each.outcome is None]

    def table(self) -> pd.DataFrame:
        """A row a contender: settings, every metric with its bounds, validation, cost, run.

        `baseline_gain` is that of its arm over the frozen features of its backbone.
        """
        return pd.DataFrame([self._row(each) for each in self.cell_results])

    def rates(self) -> pd.DataFrame:
        """A row a candidate for a learning rate.

        `cell`, `arm`, the fields of `TriedRate`, and `chosen`.
        """
        rows = [
            {
                "cell": each.name,
                "arm": each.arm,
                **dataclasses.asdict(tried),
                "chosen": tried.lr == each.outcome.lr,
            }
            for each in self.finished
            for tried in each.outcome.rates
        ]
        tried = [field.name for field in dataclasses.fields(TriedRate)]
        columns = ["cell", "arm", *tried, "chosen"]
        return pd.DataFrame(rows, columns=columns)

    def _row(self, cell_result: CellResult) -> dict[str, object]:
        outcome = cell_result.outcome
        row = {
            "cell": cell_result.name,
            "state": "failed" if outcome is None else "complete",
            "error": cell_result.error,
            **cell_result.settings,
        }
        if outcome is None:
            return row
        for metric, interval in self.scores[cell_result.name].items():
            row[f"test_{metric}"] = interval.value
            row[f"test_{metric}_low"], row[f"test_{metric}_high"] = interval.low, interval.high
        row |= self.beside.gain_of(cell_result.arm)
        return row | {
            "lr": outcome.lr,
            "rates_valid_auroc": ", ".join(f"{each.valid_auroc:.4f}" for each in outcome.rates),
            "valid_auroc": outcome.valid_auroc,
            "valid_auroc_error": outcome.valid_error,
            "epochs": len(outcome.history),
            "best_epoch": outcome.best_epoch,
            "seconds": outcome.seconds,
            "trained_parameters": outcome.trained_parameters,
            "trained_flops": outcome.trained_flops,
            "trained_share": outcome.trained_share,
            "run_id": outcome.run_id,
        }


def compared(
    cases: Cases,
    cell_results: Sequence[CellResult],
    pairs: Sequence[tuple[str, str]],
    metric: str,
    seed: int,
) -> Comparison:
    """Measures every contender on the cases, and every pair on the cases that both share.

    `pairs` are names of contenders (a, b) of one seed; pairs of the same two arms are averaged.
    Decisions are the most probable class. A pair without two outcomes is left out.
    """
    finished = {each.name: each for each in cell_results if each.outcome is not None}
    scores = {name: _scores(cases, each.outcome, seed) for name, each in finished.items()}
    arms: dict[str, list[CellResult]] = {}
    for each in finished.values():
        arms.setdefault(each.arm, []).append(each)
    pairs = [(a, b) for a, b in pairs if a in finished and b in finished]
    sides: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for a, b in pairs:
        names = finished[a].arm, finished[b].arm
        probabilities = (finished[a].outcome.probabilities, finished[b].outcome.probabilities)
        sides.setdefault(names, []).append(probabilities)
    rows = [_difference(cases, *names, each, metric, seed) for names, each in sides.items()]
    columns = ["a", "b", "difference", "low", "high", "confidence", "seeds"]
    return Comparison(
        cases,
        tuple(cell_results),
        tuple(pairs),
        metric,
        scores,
        pd.DataFrame([_arm(cases, repeats, metric, seed) for repeats in arms.values()]),
        pd.DataFrame(rows, columns=columns),
    )


def _scores(cases: Cases, outcome: Outcome, seed: int) -> dict[str, Interval]:
    measures = measure(cases.labels, outcome.probabilities, cases.groups, cases.classes, seed)
    return {name: measures.summary[name] for name in OVERALL}


def _arm(cases: Cases, repeats: list[CellResult], metric: str, seed: int) -> dict[str, object]:
    first, outcomes = repeats[0], [each.outcome for each in repeats]
    probabilities = [each.probabilities for each in outcomes]
    score = mean_score(cases.labels, probabilities, cases.groups, metric, seed)
    means = (
        "valid_auroc", "valid_error", "seconds", "trained_parameters", "trained_flops",
        "trained_share",
    )  # fmt: skip
    return {
        "arm": first.arm,
        "architecture": first.architecture,
        "series": first.series,
        "cutoff": first.cutoff,
        "place": first.outcome.place,
        "fraction": first.fraction,
        "seeds": len(repeats),
        "score": score.value,
        "low": score.low,
        "high": score.high,
        **{name: float(np.mean([getattr(each, name) for each in outcomes])) for name in means},
    }


def _difference(
    cases: Cases,
    a: str,
    b: str,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    metric: str,
    seed: int,
) -> tuple[object, ...]:
    found = mean_difference(cases.labels, pairs, cases.groups, metric, seed)
    return a, b, found.value, found.low, found.high, found.confidence, len(pairs)
