"""Scores of a model on subgroups: by age, sex, device, or any column of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.errors import ParameterError
from medtl.evaluation.jackknife import (
    Blocks,
    ByStratum,
    Difference,
    Estimate,
    Interval,
    difference,
    evidence,
)
from medtl.evaluation.metrics import subgroup_metrics
from medtl.evaluation.scored_cases import DecidedCases, ScoredCases
from medtl.evaluation.split_evaluation import SplitEvaluation

PARAMETER = "subgroups"
LEAST_CASES = 20
MOST_VALUES = 8  # columns with more different numbers are cut at their quartiles
MOST_GROUPS = 30
CHANCE = 0.05  # probability that an interval excludes zero without a difference
UNKNOWN = "unknown"  # group of cases with an empty field


def groups(values: pd.Series, column: str) -> pd.Series:
    """Assigns a group to each case: a categorical of names.

    Columns with more than 8 different numbers are cut at their quartiles; a group is named after
    its lowest and highest number. Empty fields are the last group.

    Raises:
        ParameterError: the column has too many groups.
    """
    text = values.astype(str).str.strip()
    given = text != ""
    numbers = pd.to_numeric(text[given], errors="coerce")
    numeric = bool(given.any()) and bool(np.isfinite(numbers).all())
    if numeric and numbers.nunique() > MOST_VALUES:
        cut = pd.qcut(numbers, 4, labels=False, duplicates="drop")
        bounds = numbers.groupby(cut).agg(["min", "max"])
        names = {place: _range(low, high) for place, low, high in bounds.itertuples()}
        named, order = cut.map(names), list(names.values())
    else:
        named = text[given]
        order = sorted(named.unique(), key=(lambda name: (float(name), name)) if numeric else None)
    if len(order) > MOST_GROUPS:
        raise ParameterError(
            PARAMETER, column, f"its {len(order)} values are too many, at most {MOST_GROUPS}"
        )
    found = named.reindex(text.index).fillna(UNKNOWN)
    last = [UNKNOWN] if not given.all() and UNKNOWN not in order else []
    return pd.Series(pd.Categorical(found, [*order, *last]), index=values.index, name=column)


def score_subgroups(
    cases: DecidedCases, columns: Mapping[str, pd.Series], seed: int
) -> pd.DataFrame:
    """Scores each group of each column, and its difference to all other cases.

    Args:
        cases: N cases.
        columns: group of each case, from `groups`, by column name.
        seed: seed of the blocks of more than 400 patients.

    Returns:
        One row per group: `column`, `group`, `cases`, `patients`; for each metric M of
        `subgroup_metrics` its `M`, `M_low`, `M_high`, and the difference to the rest
        `M_difference`, `M_difference_low`, `M_difference_high`; `note`, the reason for a missing
        value. A group has no scores with fewer than 20 cases or without a case of each class, and
        no difference if the rest has no scores. Of two groups the second has no difference, as it
        is the negative of the first.

    Intervals over patients are those of `medtl.evaluation.jackknife`; that of a difference allows
    for patients on both sides.
    """
    blocks = Blocks.of(cases.groups, seed)

    def side(inside: np.ndarray) -> _Side:
        return _Side.of(cases, inside, blocks)

    rows = []
    for column, grouped in columns.items():
        names = list(grouped.cat.categories)
        for place, name in enumerate(names):
            group = side((grouped == name).to_numpy())
            row: dict[str, object] = {"column": column, "group": name, **group.row()}
            mirrored = len(names) == 2 and place == 1
            if len(names) > 1 and not mirrored and not group.note:
                row |= _difference_row(group, side(~group.inside))
            rows.append(row)
    return pd.DataFrame(rows, columns=_columns())


@dataclass(frozen=True)
class SubgroupEvaluation:
    """Scores of a model on subgroups of a split.

    Attributes:
        split: name of the split.
        columns: names of the columns that make the groups.
        table: result of `score_subgroups`.
        overall: scores of all cases, by metric.
    """

    split: str
    columns: tuple[str, ...]
    table: pd.DataFrame
    overall: Mapping[str, Interval]

    def lines(self) -> list[str]:
        """Formats the differences whose interval excludes zero as lines for the console."""
        lines, count = differing(self.table)
        opening = [
            f"subgroups     {len(self.table)} by {', '.join(self.columns)}: {len(lines)} of "
            f"{count} differences to the rest have an interval without zero"
        ]
        if count:
            expected = f"{CHANCE * count:.1f} of {count}"
            opening.append(f"  (about {expected} are expected by chance alone)")
        unscored = int(self.table[_names()[0]].isna().sum())
        if unscored:
            opening.append(f"  {unscored} without scores: too few cases, or none of some class")
        return [*opening, *(f"  {line}" for line in lines)]


def evaluate_subgroups(
    evaluation: SplitEvaluation, columns: Mapping[str, pd.Series], seed: int
) -> SubgroupEvaluation:
    """Scores the groups of a split; `columns` as in `score_subgroups`."""
    summary = evaluation.measures.summary
    return SubgroupEvaluation(
        evaluation.split,
        tuple(columns),
        score_subgroups(evaluation.cases, columns, seed),
        {name: summary[name] for name in _names()},
    )


def subgroup_columns(
    dataset: Dataset, indices: np.ndarray, columns: Sequence[str]
) -> dict[str, pd.Series]:
    """Groups the cases of `indices` by each column of the data.

    Raises:
        ParameterError: there is no such column, or it has too many groups.
    """
    frame = dataset.frame
    for column in columns:
        if column not in frame or column == "label":
            known = ", ".join(name for name in frame.columns if name != "label")
            raise ParameterError(PARAMETER, column, f"a comma list of columns: {known}")
    return {column: groups(frame[column].iloc[indices], column) for column in columns}


def differing(table: pd.DataFrame) -> tuple[list[str], int]:
    """Formats a line per difference whose interval excludes zero; counts all differences.

    `table` is that of `score_subgroups`.
    """
    lines, count = [], 0
    for row in table.to_dict("records"):
        for metric in _names():
            name = f"{metric}_difference"
            value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
            if np.isnan([low, high]).any():
                continue
            count += 1
            if low > 0 or high < 0:
                score = Interval(row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
                lines.append(
                    f"{row['column']} {row['group']} ({row['cases']} cases): {metric} {score}, "
                    f"{value:+.3f} ({low:+.3f} to {high:+.3f}) to the rest"
                )
    return lines, count


@dataclass(frozen=True)
class _Side:
    """Subset of the cases, `inside` bool [N], with its metrics."""

    inside: np.ndarray
    patients: int
    note: str
    scores: dict[str, Estimate]
    freedom: ByStratum  # for the difference to the other cases

    @classmethod
    def of(cls, cases: DecidedCases, inside: np.ndarray, blocks: Blocks) -> _Side:
        patients, note = len(np.unique(cases.groups[inside])), _lacking(cases, inside)
        both = ByStratum(blocks.strata(cases.labels))
        if note:
            return cls(inside, patients, note, {}, both)
        labels, here = cases.labels[inside], blocks.among(inside)
        scored = cases.among(inside).scored()
        whole = _scores(scored, np.ones((1, len(labels))))
        parts = [_scores(scored, weights) for weights in here.without()] if patients > 1 else []
        behind = evidence(labels, cases.groups[inside], len(cases.classes)).overall
        own = ByStratum(here.strata(labels))
        scores = {}
        for metric in subgroup_metrics():
            name, bounds = metric.name, metric.bounds(len(cases.classes), False)
            moves = here.moves(np.concatenate([*(part[name] for part in parts), []]))
            scores[name] = Estimate(float(whole[name][0]), moves, own, behind[name], *bounds)
        return cls(inside, patients, "", scores, both)

    def row(self) -> dict[str, object]:
        row: dict[str, object] = {"cases": int(self.inside.sum()), "patients": self.patients}
        for name, found in self.scores.items():
            row |= _bounded(name, found.interval)
        return row | {"note": self.note}

    def difference(self, rest: _Side, metric: str) -> Difference:
        """Returns the metric here less that of the rest."""
        here = dataclasses.replace(self.scores[metric], freedom=self.freedom)
        return difference(rest.scores[metric], here)


def _lacking(cases: DecidedCases, inside: np.ndarray) -> str:
    """Returns why the cases `inside` (bool [N]) cannot be scored; '' if they can."""
    if inside.sum() < LEAST_CASES:
        return f"fewer than {LEAST_CASES} cases"
    counts = np.bincount(cases.labels[inside], minlength=len(cases.classes))
    absent = [name for name, count in zip(cases.classes, counts, strict=True) if not count]
    return f"no case of {', '.join(absent)}" if absent else ""


def _bounded(name: str, found: Interval | Difference) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _difference_row(side: _Side, rest: _Side) -> dict[str, object]:
    if rest.note:
        return {"note": f"not compared: the rest has {rest.note}"}
    row: dict[str, object] = {}
    for metric in _names():
        row |= _bounded(f"{metric}_difference", side.difference(rest, metric))
    return row


def _scores(scored: ScoredCases, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the metrics [R] under `weights` [R, N]; NaN for all-zero weights."""
    drawn = weights.any(axis=1)
    weighted, scores = scored.weighted(weights[drawn]), {}
    for metric in subgroup_metrics():
        scores[metric.name] = np.full(len(weights), np.nan)
        scores[metric.name][drawn] = metric.score(weighted)
    return scores


def _names() -> list[str]:
    return [each.name for each in subgroup_metrics()]


def _columns() -> list[str]:
    each = [name + kind for name in _names() for kind in ("", "_difference")]
    bounds = [name + end for name in each for end in ("", "_low", "_high")]
    return ["column", "group", "cases", "patients", *bounds, "note"]


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
