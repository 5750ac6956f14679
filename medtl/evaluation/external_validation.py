"""External validation: mapping of labels, and scores beside the internal ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.errors import ParameterError
from medtl.evaluation.confidence_intervals import Measures
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import headline_metrics
from medtl.inference.decisions import decide
from medtl.settings.fields import quoted

PARAMETER = "mapping"


@dataclass(frozen=True)
class ClassMapping:
    """Mapping of the J classes of a model to K labels of other data.

    A class is mapped to at most one label. The probabilities of unmapped classes are distributed
    over the others in proportion.

    Attributes:
        labels: K labels of the data, in their order.
        columns: for each label the indices of its classes, at least one.
        dropped: labels of the data that are left out.
    """

    labels: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    dropped: tuple[str, ...] = ()

    @classmethod
    def same(cls, classes: Sequence[str]) -> ClassMapping:
        """Maps each class to itself."""
        return cls(tuple(classes), tuple((index,) for index in range(len(classes))))

    @classmethod
    def of(
        cls, asked: Mapping[str, Sequence[str]], labels: Sequence[str], classes: Sequence[str]
    ) -> ClassMapping:
        """Builds a mapping from labels to classes; an empty list leaves the label out.

        A label that is not mentioned is mapped to the class of its name.

        Raises:
            ParameterError: a label or a class does not exist, a label has no class, a class is
                mapped to two labels, or fewer than two labels are left.
        """
        known = {name: (name,) for name in labels if name in classes}
        meant = {name: tuple(asked.get(name, known.get(name, ()))) for name in labels}
        _check_names(asked, labels, classes)
        without = [name for name in labels if not meant[name] and name not in asked]
        if without:
            raise _wrong(
                ", ".join(without),
                f"say which of the model's classes ({_listed(classes)}) each label is: "
                f"LABEL=CLASS or LABEL=CLASS|CLASS, or LABEL= to leave its images out",
            )
        _check_once(meant)
        kept = tuple(name for name in labels if meant[name])
        if len(kept) < 2:
            raise _wrong(", ".join(kept) or "no label", "at least two labels must be left")
        places = {name: index for index, name in enumerate(classes)}
        columns = tuple(tuple(places[each] for each in meant[name]) for name in kept)
        return cls(kept, columns, tuple(name for name in labels if not meant[name]))

    def probabilities(self, own: np.ndarray) -> np.ndarray:
        """Converts a model's probabilities [N, J] to those of the labels [N, K]; rows sum to 1."""
        added = np.stack([own[:, list(each)].sum(axis=1) for each in self.columns], axis=1)
        if sum(len(each) for each in self.columns) == own.shape[1]:
            return added
        total = added.sum(axis=1, keepdims=True)
        even = np.full_like(added, 1 / len(self.labels))
        return np.divide(added, total, out=even, where=total > 0)

    def decisions(self, own: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Decides for a label, int64 [N], among the classes that are mapped.

        Args:
            own: the model's probabilities [N, J].
            thresholds: [J], as in `decide`.
        """
        means = np.isin(np.arange(own.shape[1]), [place for each in self.columns for place in each])
        return self.labels_of_classes(decide(np.where(means, own, -1.0), thresholds))

    def sets(self, own: np.ndarray) -> np.ndarray:
        """Converts prediction sets of a model's classes (bool [N, J]) to those of labels [N, K].

        A label is in the set if any of its classes is.
        """
        return np.stack([own[:, list(each)].any(axis=1) for each in self.columns], axis=1)

    def labels_of_classes(self, classes: np.ndarray) -> np.ndarray:
        """Converts classes of a model (int [N]) to labels (int64 [N]); -1 for unmapped ones."""
        table = np.full(max(classes.max(initial=0), *map(max, self.columns)) + 1, -1)
        for label, each in enumerate(self.columns):
            table[list(each)] = label
        return table[classes]


def _check_names(
    asked: Mapping[str, Sequence[str]], labels: Sequence[str], classes: Sequence[str]
) -> None:
    for name, meaning in asked.items():
        if name not in labels:
            raise _wrong(name, f"before = a label of the data: {_listed(labels)}")
        for each in meaning:
            if each not in classes:
                raise _wrong(each, f"after = a class of the model: {_listed(classes)}")


def _check_once(meant: Mapping[str, Sequence[str]]) -> None:
    owner: dict[str, str] = {}
    for name, meaning in meant.items():
        for each in meaning:
            if owner.setdefault(each, name) != name:
                raise _wrong(each, f"it means one label, not {owner[each]} and {name}")


def _listed(names: Sequence[str]) -> str:
    """Formats names as a parameter value."""
    return ", ".join(map(quoted, names))


def _wrong(value: str, allowed: str) -> ParameterError:
    return ParameterError(PARAMETER, value, allowed)


def internal_and_external(internal: Measures, external: Measures) -> pd.DataFrame:
    """Compares internal and external scores, a row a metric.

    Columns: `metric`, and `internal`, `external`, `difference` with `_low` and `_high`. The
    difference is external less internal, on different patients; its 95 % interval is computed from
    both intervals (Zou & Donner 2008, "Construction of confidence limits about effect measures",
    Statistics in Medicine 27:1693). An interval without zero is a drift.
    """
    rows = []
    for name, here in internal.summary.items():
        there = external.summary[name]
        each = {
            "internal": here,
            "external": there,
            "difference": independent_difference(here, there),
        }
        row: dict[str, object] = {"metric": name}
        for column, found in each.items():
            row |= {column: found.value, f"{column}_low": found.low, f"{column}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class ExternalEvaluation:
    """Scores of a model on its own test split and on other data.

    Attributes:
        name: name of the other data.
        table: result of `internal_and_external`.
    """

    name: str
    table: pd.DataFrame

    def lines(self) -> list[str]:
        """Formats the headline metrics as lines for the console."""
        sides = ("internal", f"external: {self.name}", "difference")
        lines = [
            "internal and external   (the model's own test split and this data, with the same "
            "labels)",
            " " * 22 + "".join(f"{side:<27}" for side in sides).rstrip(),
        ]
        rows = self.table.set_index("metric")
        for metric in headline_metrics():
            row = rows.loc[metric.name]
            each = [
                f"{row[column]:{sign}.3f} ({row[f'{column}_low']:{sign}.3f} to "
                f"{row[f'{column}_high']:{sign}.3f})".ljust(27)
                for column, sign in (("internal", ""), ("external", ""), ("difference", "+"))
            ]
            lines.append(f"  {metric.name.replace('_', ' '):<20}{''.join(each).rstrip()}")
        return lines


def independent_difference(a: Interval, b: Interval) -> Interval:
    """Computes b less a, measured on different patients (Zou & Donner 2008)."""
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Interval(value, low, high)
