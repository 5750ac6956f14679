"""Doubtful labels: those that the probabilities of models which have not seen the case contradict.

Confident learning (Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in
dataset labels", Journal of Artificial Intelligence Research 70:1373) by cleanlab. A doubtful label
may be wrong, or the case hard: nothing is removed from the data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset
from medtl.errors import MedtlError
from medtl.evaluation.confidence_intervals import measure
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.scored_cases import DecidedCases, has_findings, labelled_cases
from medtl.inference.grad_cam import side_by_side

SHOWN = 24  # cases of the gallery
CHANCE = 0.5  # AUROC
REPORTED = ("auroc", "balanced_accuracy")
FINDING, GIVEN, SUGGESTED, SCORE = "finding", "label", "suggested", "score"
"""Columns of the list; `FINDING` only where labels are findings."""
PRESENT, ABSENT = "present", "absent"


@dataclass(frozen=True)
class ScoresWithoutDoubtful:
    """Scores with and without doubtful labels.

    Attributes:
        doubtful: number of doubtful labels.
        labels: number of labels.
        with_them: intervals by metric, over all cases.
        without: the same without doubtful labels; empty if no other is left.
    """

    doubtful: int
    labels: int
    with_them: Mapping[str, Interval]
    without: Mapping[str, Interval]

    def line(self) -> str:
        """Formats a line for the console and the card."""
        are = "label is" if self.doubtful == 1 else "labels are"
        line = f"{self.doubtful} of {self.labels} {are} doubtful, and counted above"
        if not self.doubtful:
            return f"none of {self.labels} labels is in the list of doubtful ones"
        if self.with_them["auroc"].low <= CHANCE:
            line += ", but models that may be at chance cannot tell"
        if not self.without:
            return f"{line}; no other is left to be scored"
        scores = ", ".join(f"{name.replace('_', ' ')} {self.without[name]}" for name in REPORTED)
        return f"{line}; without them {scores}, biased upwards: models contradict those left out"


@dataclass(frozen=True)
class DoubtfulLabels:
    """Doubtful labels of N cases, the most doubtful first.

    Attributes:
        table: a row a doubtful label: name of the case, `patient`, the given `label`, the
            `suggested` one and `score`, the probability of the given label. Of findings, `finding`
            is its name, and labels are `present` or `absent`.
        images: [M, C, H, W], stored pixels of the first `SHOWN` rows.
        scores: scores with and without them.
    """

    table: pd.DataFrame
    images: np.ndarray
    scores: ScoresWithoutDoubtful


def find_doubtful(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds doubtful labels by confident learning, the least probable first.

    Args:
        labels: int [N], or int8 [N, K] of findings (1 present, 0 absent, -1 unknown), each taken
            by itself on the cases where it is known.
        probabilities: [N, K], calibrated, of models that have not seen the case.

    Returns:
        int64 [M] each: places of the cases, and the suggested classes, or the findings in doubt.
    """
    if not has_findings(labels):
        found = _issues(labels, probabilities)
        return found, probabilities[found].argmax(axis=1)
    cases, about = [], []
    for place in range(probabilities.shape[1]):
        known, positive = labelled_cases(labels, place)
        if positive.any() and not positive.all():
            share = probabilities[known, place]
            found = known[_issues(positive.astype(int), np.stack([1 - share, share], axis=1))]
            cases.append(found)
            about.append(np.full(len(found), place))
    if not cases:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    places, findings = np.concatenate(cases), np.concatenate(about)
    order = np.argsort(_of_given(labels, probabilities, places, findings), kind="stable")
    return places[order], findings[order]


def _issues(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns places of doubtful labels int [N], the least probable first: int64 [M]."""
    # cleanlab imports much of scikit-learn
    from cleanlab.filter import find_label_issues

    known = np.unique(labels)  # cleanlab needs cases of each class
    among = np.searchsorted(known, labels)
    share = probabilities[:, known] / probabilities[:, known].sum(axis=1, keepdims=True)
    found = find_label_issues(among, share, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64)


def _of_given(
    labels: np.ndarray, probabilities: np.ndarray, places: np.ndarray, about: np.ndarray
) -> np.ndarray:
    """Returns the probability of the given label of each row: float64 [M]."""
    if not has_findings(labels):
        return probabilities[places, labels[places]]
    share = probabilities[places, about]
    return np.where(labels[places, about] == 1, share, 1 - share)


def doubtful_labels(
    dataset: Dataset, indices: np.ndarray, cases: DecidedCases, seed: int
) -> DoubtfulLabels:
    """Lists the doubtful labels of the samples `indices` int64 [N], scored as `cases`."""
    places, about = find_doubtful(cases.labels, cases.probabilities)
    frame = dataset.frame[[dataset.naming, "patient"]].iloc[indices[places]]
    table = frame.reset_index(drop=True)
    names = np.array(cases.classes, object)
    if has_findings(cases.labels):
        there = cases.labels[places, about] == 1
        table[FINDING] = names[about]
        table[GIVEN] = np.where(there, PRESENT, ABSENT)
        table[SUGGESTED] = np.where(there, ABSENT, PRESENT)
    else:
        table[GIVEN], table[SUGGESTED] = names[cases.labels[places]], names[about]
    table[SCORE] = _of_given(cases.labels, cases.probabilities, places, about)
    doubtful = np.zeros(cases.labels.shape, bool)
    doubtful[(places, about) if has_findings(cases.labels) else places] = True
    images = side_by_side(dataset.images(indices[places[:SHOWN]]))
    return DoubtfulLabels(table, images, scores_without_doubtful(cases, doubtful, seed))


def listed(table: pd.DataFrame, dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Flags the labels of samples that a list names: bool [N], of findings [N, K].

    A row of the list counts where a sample has its name and still the label that it calls
    doubtful.

    Args:
        table: of `DoubtfulLabels`, as text.
        dataset: any data set.
        indices: int64 [N], its samples.

    Raises:
        MedtlError: the table lacks a column.
    """
    columns = [dataset.naming, GIVEN, *([FINDING] if dataset.multi_label else [])]
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise MedtlError(
            f"the list of doubtful labels has no column {lacking[0]}; give the "
            "doubtful_labels.csv of a cross-validation of the same data"
        )
    rows = set(table[columns].itertuples(index=False, name=None))
    names, labels = dataset.frame[dataset.naming].iloc[indices], dataset.labels[indices]
    if not dataset.multi_label:
        given = (dataset.classes[label] for label in labels)
        return np.array([each in rows for each in zip(names, given, strict=True)], bool)
    words = {1: PRESENT, 0: ABSENT}
    return np.array(
        [
            [
                (name, words.get(int(label)), finding) in rows
                for label, finding in zip(row, dataset.classes, strict=True)
            ]
            for name, row in zip(names, labels, strict=True)
        ],
        bool,
    ).reshape(labels.shape)


def scores_without_doubtful(
    cases: DecidedCases, doubtful: np.ndarray, seed: int
) -> ScoresWithoutDoubtful:
    """Scores cases with and without doubtful labels: bool [N], of findings [N, K].

    A doubtful finding counts as unknown, the others of its case still count.
    """
    known = int((cases.labels >= 0).sum())
    left = known - int(doubtful.sum())
    if has_findings(cases.labels):
        labels = np.where(doubtful, np.int8(-1), cases.labels)
        others = dataclasses.replace(cases, labels=labels)
    else:
        others = cases.among(~doubtful)
    return ScoresWithoutDoubtful(
        known - left, known, _scores(cases, seed), _scores(others, seed) if left else {}
    )


def _scores(cases: DecidedCases, seed: int) -> Mapping[str, Interval]:
    found = measure(
        cases.labels,
        cases.probabilities,
        cases.groups,
        cases.classes,
        seed,
        decisions=cases.decisions,
    ).summary
    return {name: found[name] for name in REPORTED}
