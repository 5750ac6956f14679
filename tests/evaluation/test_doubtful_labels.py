"""Flipped labels are found, listed by the probability of the given label, and counted apart."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax

from medtl.data.dataset import Dataset
from medtl.data.loading import load
from medtl.errors import MedtlError
from medtl.evaluation.doubtful_labels import (
    doubtful_labels,
    find_doubtful,
    listed,
    scores_without_doubtful,
)
from medtl.evaluation.jackknife import Interval
from medtl.evaluation.scored_cases import DecidedCases
from medtl.reporting.plots.image_sheets import doubtful_sheet


def flipped(labels: np.ndarray, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which `count` are another class, and their places."""
    places = np.random.default_rng(1).choice(len(labels), count, replace=False)
    changed = labels.copy()
    changed[places] = (changed[places] + 1) % classes
    return changed, places


def predicted(labels: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities of a good model of the true labels."""
    logits = np.random.default_rng(2).normal(size=(len(labels), classes))
    return softmax(logits + 3.5 * np.eye(classes)[labels], axis=1)


@pytest.fixture(scope="module")
def wards(small_phantoms: Path) -> Dataset:
    return load(str(small_phantoms), 64, seed=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_most_flipped_labels_are_found_the_least_probable_first(classes: int):
    true = np.random.default_rng(0).integers(classes, size=400)
    given, places = flipped(true, 40, classes)
    probabilities = predicted(true, classes)
    found, suggested = find_doubtful(given, probabilities)
    assert len(set(found) & set(places)) >= 0.8 * 40
    assert np.isin(found, places).mean() >= 0.8
    of_given = probabilities[found, given[found]]
    assert (np.diff(of_given) >= 0).all()
    assert (suggested != given[found]).all()
    assert (suggested[:20] == true[found[:20]]).all()


def test_a_class_without_cases_is_no_obstacle():
    true = np.random.default_rng(0).integers(2, size=200) * 2
    given, places = true.copy(), np.arange(5)
    given[places] = 2 - given[places]
    found, suggested = find_doubtful(given, predicted(true, 3))
    assert set(places) <= set(found)
    assert (suggested[np.isin(found, places)] == true[found[np.isin(found, places)]]).all()


def test_each_finding_is_in_doubt_by_itself_where_it_is_known():
    random = np.random.default_rng(3)
    true = random.integers(2, size=(300, 3)).astype(np.int8)
    probabilities = expit(random.normal(7.0 * true - 3.5, 1.0))
    given = true.copy()
    given[:10, 1] = 1 - given[:10, 1]
    given[10:40, 1] = -1
    given[:, 2] = 1  # no case without it: nothing to compare with
    found, about = find_doubtful(given, probabilities)
    assert set(about) == {1}
    assert len(set(range(10)) & set(found)) >= 8
    assert not np.isin(found, np.arange(10, 40)).any()
    none = find_doubtful(np.ones((8, 1), np.int8), np.full((8, 1), 0.5))
    assert [len(each) for each in none] == [0, 0]


def test_the_list_names_cases_and_its_scores_say_what_is_left_out(wards: Dataset):
    indices, classes = np.arange(len(wards.labels)), len(wards.classes)
    given, places = flipped(wards.labels, 12, classes)
    dataset = dataclasses.replace(wards, labels=given)
    probabilities = predicted(wards.labels, classes)
    cases = DecidedCases(
        given, wards.groups, wards.classes, probabilities, probabilities.argmax(axis=1)
    )
    found = doubtful_labels(dataset, indices, cases, seed=0)
    table, scores = found.table, found.scores
    assert list(table.columns) == ["path", "patient", "label", "suggested", "score"]
    names = wards.frame["path"].tolist()
    assert {names[place] for place in places} & set(table["path"][:12])
    first = names.index(table["path"][0])
    assert table["label"][0] == wards.classes[given[first]]
    assert table["suggested"][0] == wards.classes[wards.labels[first]]
    assert table["score"][0] == probabilities[first, given[first]]
    assert scores.doubtful == len(table) == len(found.images)
    assert scores.without["auroc"].value > scores.with_them["auroc"].value
    assert (
        f"{len(table)} of {len(names)} labels are doubtful, and counted above; without them "
        in (scores.line())
    )
    chance = dataclasses.replace(scores, with_them={"auroc": Interval(0.55, 0.45, 0.65)})
    assert "but models that may be at chance cannot tell; without" in chance.line()
    doubtful_sheet(found.images, table).savefig(io.BytesIO())

    flags = listed(table.astype(str), dataset, indices)
    assert [names[place] for place in np.flatnonzero(flags)] == sorted(
        table["path"], key=names.index
    )
    # labels that were corrected since are no longer in doubt
    assert not listed(table.astype(str), wards, indices)[places].any()
    with pytest.raises(MedtlError, match="no column label"):
        listed(table[["path"]], dataset, indices)


def test_a_doubtful_finding_leaves_the_others_of_its_case_counted(wards: Dataset):
    labels = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [1, -1]], np.int8)
    findings = dataclasses.replace(wards, labels=labels, classes=("Mass", "Edema"))
    probabilities = np.array([[0.9, 0.2], [0.2, 0.8], [0.1, 0.7], [0.3, 0.1], [0.8, 0.5]])
    cases = DecidedCases(
        labels, np.arange(5), findings.classes, probabilities, probabilities >= 0.5
    )
    name = findings.frame["path"][2]
    table = pd.DataFrame({"path": [name], "finding": ["Mass"], "label": ["present"]})
    flags = listed(table, findings, np.arange(5))
    assert np.argwhere(flags).tolist() == [[2, 0]]
    scores = scores_without_doubtful(cases, flags, seed=0)
    assert (scores.doubtful, scores.labels) == (1, 9)
    assert scores.without["auroc"].value == 1 > scores.with_them["auroc"].value
