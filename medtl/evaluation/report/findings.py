"""Findings on a data set that matter before training, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medtl.data.duplicates import identical_under_two_patients
from medtl.data.report.copies import IDENTICAL, NEAR
from medtl.data.report.facts import DataFacts
from medtl.data.report.shortcuts import ALL, Shortcuts
from medtl.evaluation.intervals import mean_score

CLEAR = 0.6  # AUROC; an interval above it says that a shortcut is there
RESAMPLES = 1000
NAMED = 3  # examples in a line
NOTHING = "Nothing stands out: no copies of one image in two splits or under two labels"


def shortcut_table(shortcuts: Shortcuts | None, seed: int) -> pd.DataFrame:
    """Builds a table of one row per acquisition trace: `trace`, `auroc`, `low`, `high`.

    The AUROC (with several classes the one-against-rest mean) has a 95 % interval over patients,
    conditional on the models that gave the scores.
    """
    rows = []
    if shortcuts is not None:
        for name, scores in shortcuts.probabilities.items():
            if scores is not None:
                score = mean_score(
                    shortcuts.labels, [scores], shortcuts.groups, "auroc", seed, RESAMPLES
                )
                rows.append((name, score.value, score.low, score.high))
    return pd.DataFrame(rows, columns=["trace", "auroc", "low", "high"])


def findings(facts: DataFacts, shortcuts: pd.DataFrame) -> list[str]:
    """A line for each thing to look at before training; none where nothing stands out.

    `shortcuts` as `shortcut_table` gives it.
    """
    copies = facts.copies
    of_two = copies[two_patients(copies)]
    lines = [
        identical_under_two_patients(facts.images.frame),
        _copies(of_two[of_two["kind"] != IDENTICAL], "patient", "under two patients"),
    ]
    lines += [_copies(copies, column, where) for column, where in _PLACES]
    lines += [_shared(facts.patients), _blank(facts.blank), _shortcut(shortcuts)]
    return [line for line in lines if line]


def nothing_found(facts: DataFacts, shortcuts: pd.DataFrame) -> str:
    """Formats the line for a data set without findings."""
    line = f"{NOTHING}, no blank image"
    if len(facts.patients):
        line += (
            ", no known patient in two splits" if facts.unknown else ", no patient in two splits"
        )
    if not shortcuts.empty:
        line += ", no clear shortcut"
    if facts.unknown:
        line += ". Patients are unknown" + (" of some images" if len(facts.patients) else "")
        line += ": images of one may lie in two splits, which cannot be checked"
    if shortcuts.empty:
        line += ". Acquisition traces could not be checked for a shortcut"
    return f"{line}."


def two_patients(copies: pd.DataFrame) -> pd.Series:
    """Flags pairs of two known patients, bool."""
    first, second = copies["first_patient"], copies["second_patient"]
    return (first != second) & (first != "") & (second != "")


def crossing(copies: pd.DataFrame, column: str) -> pd.DataFrame:
    """For each group of copies that differ in `column`: a pair of two that do."""
    pairs = copies[copies[f"first_{column}"] != copies[f"second_{column}"]]
    return pairs.drop_duplicates("group")


_PLACES = (
    ("split", "in two splits: scores are flattered by what was seen in training"),
    ("label", "under two labels: look which label is right"),
)


def _copies(copies: pd.DataFrame, column: str, where: str) -> str:
    pairs = crossing(copies, column)
    if pairs.empty:
        return ""
    named = (f"{each.first_path} and {each.second_path}" for each in pairs.itertuples())
    count = many(len(pairs), "group", "groups")
    near = int((pairs["kind"] == NEAR).sum())
    kind = "nearly identical" if near == len(pairs) else "identical or nearly identical"
    if near == 0:
        kind = "identical"
    return f"{count} of {kind} images {where} ({_some(list(named))})"


def _shared(patients: pd.DataFrame) -> str:
    names = patients.loc[patients["splits"].str.contains("|", regex=False), "patient"].tolist()
    if not names:
        return ""
    return f"{many(len(names), 'patient is', 'patients are')} in two splits ({_some(names)})"


def _blank(blank: pd.DataFrame) -> str:
    paths = blank["path"].tolist()
    if not paths:
        return ""
    return f"{many(len(paths), 'image is', 'images are')} blank ({_some(paths)})"


def _shortcut(table: pd.DataFrame) -> str:
    clear = table[table["low"] > CLEAR].sort_values("auroc", ascending=False)
    if clear.empty:
        return ""
    told = [
        f"{each.trace} {each.auroc:.2f} ({each.low:.2f} to {each.high:.2f})"
        for each in clear.itertuples()
        if each.trace != ALL
    ]
    best = clear.iloc[0]
    single = f": {', '.join(told)}" if told else ""
    return (
        f"the label can be told without the picture, with an AUROC of {best['auroc']:.2f} "
        f"({best['low']:.2f} to {best['high']:.2f}) from how the images were made{single}; a "
        "network could learn the scanner instead of the disease"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def many(count: int, one: str, more: str) -> str:
    """Returns a count with its noun."""
    return f"{count:,} {one if count == 1 else more}"


def middle(values: pd.Series) -> str:
    """Returns the range and the median of counts, as words."""
    if values.nunique() == 1:
        return f"{values.iloc[0]} each"
    return f"{values.min()} to {values.max()}, median {np.median(values):g}"
