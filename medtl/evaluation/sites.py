"""A model at home and on another site: its scores on its own test split beside those elsewhere."""

from __future__ import annotations

import math

import pandas as pd

from medtl.evaluation.intervals import Interval, Measures
from medtl.evaluation.metrics import OVERALL


def beside(internal: Measures, external: Measures) -> pd.DataFrame:
    """A row a metric: `metric`, and `internal`, `external`, `difference` with `_low` and `_high`.

    The difference is external less internal, of other patients; its 95 % interval comes from
    those of both (Zou & Donner 2008, "Construction of confidence limits about effect measures",
    Statistics in Medicine 27:1693). An interval that excludes zero is a drift.
    """
    rows = []
    for name in OVERALL:
        here, there = internal.summary[name], external.summary[name]
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


def independent_difference(a: Interval, b: Interval) -> Interval:
    """b less a, measured on different patients, by the method of Zou & Donner 2008."""
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Interval(value, low, high)
