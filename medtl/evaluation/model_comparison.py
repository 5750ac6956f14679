"""Comparison of many models on the same test cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from medtl.evaluation.baseline_gains import Cases, ComparisonBaselines
from medtl.evaluation.confidence_intervals import mean_difference, mean_score, measure
from medtl.evaluation.jackknife import Interval


@dataclass(frozen=True)
class TriedRate:
    """A candidate for a learning rate, and its scores on the validation split.

    Attributes:
        lr: learning rate.
        valid_auroc: AUROC of its best epoch; NaN if the training failed.
        valid_loss: loss of the same epoch.
        best_epoch: from 1; 0 if the training failed.
        seconds: duration of its training.
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
        history: a row an epoch, as in `learning_curves`.
        valid_auroc: validation AUROC of the best epoch.
        valid_error: its standard error, over patients.
        best_epoch: from 1.
        seconds: duration of training and scoring.
        place: index of the cut in forward order; larger is deeper.
        trained_parameters: number of trained parameters.
        trained_flops: forward operations after the cut, for one image.
        trained_share: their share, 0 to 1, of the network's operations.
        run_id: its MLflow run.
        lr: learning rate; 0 for a hybrid or a solved head.
        rates: candidates among which `lr` was chosen; none if it was given.
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
    """One cell of a study, with an outcome or an error.

    Repeats under several seeds share an `arm`. `series` names its curve among those of its
    `architecture`; `settings` are columns of the table.
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
    """Results of a study.

    Attributes:
        cases: the test cases.
        cell_results: cells in the order of the report, also failed ones.
        pairs: names of cells (a, b) with an outcome each.
        metric: name of the compared score, an overall metric of `medtl.evaluation.metrics`.
        scores: intervals by cell and metric.
        arms: a row an arm with an outcome: `arm`, `architecture`, `series`, `cutoff`, `place`,
            `fraction`, `seeds` (their number), `score`, `low`, `high` of the metric, and the
            means of `valid_auroc`, `valid_error`, `seconds`, `trained_parameters`,
            `trained_flops`, `trained_share`.
        differences: a row a pair of arms: `a`, `b`, `difference` (b less a), `low`, `high`,
            `confidence` (that b is better), `seeds`.
        baselines: classifiers without fine-tuning, which are not cells.
    """

    cases: Cases
    cell_results: tuple[CellResult, ...]
    pairs: tuple[tuple[str, str], ...]
    metric: str
    scores: dict[str, dict[str, Interval]]
    arms: pd.DataFrame
    differences: pd.DataFrame
    baselines: ComparisonBaselines = field(default_factory=ComparisonBaselines)

    @property
    def finished(self) -> list[CellResult]:
        """Cells with an outcome."""
        return [each for each in self.cell_results if each.outcome is not None]

    @property
    def failed(self) -> list[CellResult]:
        """Cells without an outcome."""
        return [each for each in self.cell_results if each.outcome is None]

    def table(self) -> pd.DataFrame:
        """Builds a row a cell: settings, every metric with its bounds, validation, cost, run.

        `baseline_gain` is the gain of its arm over the frozen features of its backbone.
        """
        return pd.DataFrame([self._row(each) for each in self.cell_results])

    def rates(self) -> pd.DataFrame:
        """Builds a row a candidate for a learning rate.

        Columns: `cell`, `arm`, the fields of `TriedRate`, and `chosen`.
        """
        rows = [
            {
                "cell": each.name,
                "arm": each.arm,
                **dataclasses.asdict(tried),
                "chosen": tried.lr == each.outcome.lr,
            }
            for each in self.cell_results
            if each.outcome is not None
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
        row |= self.baselines.gain_of(cell_result.arm)
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
    """Measures every finished cell on the cases, and every pair of cells on the same cases.

    `pairs` are names of cells (a, b) of one seed; pairs of the same two arms are averaged.
    Decisions are the most probable class. A pair with a failed cell is left out.
    """
    finished = {
        each.name: (each, each.outcome) for each in cell_results if each.outcome is not None
    }
    scores = {
        name: measure(cases.labels, of.probabilities, cases.groups, cases.classes, seed).summary
        for name, (_, of) in finished.items()
    }
    arms: dict[str, list[tuple[CellResult, Outcome]]] = {}
    for each in finished.values():
        arms.setdefault(each[0].arm, []).append(each)
    pairs = [(a, b) for a, b in pairs if a in finished and b in finished]
    sides: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for a, b in pairs:
        (cell_a, of_a), (cell_b, of_b) = finished[a], finished[b]
        both = of_a.probabilities, of_b.probabilities
        sides.setdefault((cell_a.arm, cell_b.arm), []).append(both)
    rows = []
    for (a, b), repeats in sides.items():
        found = mean_difference(cases.labels, repeats, cases.groups, metric, seed)
        rows.append((a, b, found.value, found.low, found.high, found.confidence, len(repeats)))
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


def _arm(
    cases: Cases, repeats: Sequence[tuple[CellResult, Outcome]], metric: str, seed: int
) -> dict[str, object]:
    (cell, outcome), outcomes = repeats[0], [outcome for _, outcome in repeats]
    probabilities = [each.probabilities for each in outcomes]
    score = mean_score(cases.labels, probabilities, cases.groups, metric, seed)
    means = (
        "valid_auroc", "valid_error", "seconds", "trained_parameters", "trained_flops",
        "trained_share",
    )  # fmt: skip
    return {
        "arm": cell.arm,
        "architecture": cell.architecture,
        "series": cell.series,
        "cutoff": cell.cutoff,
        "place": outcome.place,
        "fraction": cell.fraction,
        "seeds": len(repeats),
        "score": score.value,
        "low": score.low,
        "high": score.high,
        **{name: float(np.mean([getattr(each, name) for each in outcomes])) for name in means},
    }
