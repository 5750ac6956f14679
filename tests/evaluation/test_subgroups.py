"""Scores of parts of the cases, and how they differ from the rest."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from medtl.errors import ParameterError
from medtl.evaluation.confidence_intervals import measure, wilson
from medtl.evaluation.metrics import subgroup_metrics
from medtl.evaluation.scored_cases import DecidedCases
from medtl.evaluation.subgroups import differing, groups, score_subgroups
from medtl.reporting.plots import robustness

METRICS = [each.name for each in subgroup_metrics()]


def made_cases(skill: np.ndarray, seed: int, classes: int = 2, images: int = 1) -> DecidedCases:
    """N cases, each answered with a skill of its own; `images` of a patient."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=len(skill))
    logits = generator.normal(size=(len(skill), classes))
    logits[np.arange(len(skill)), labels] += skill
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return DecidedCases(
        labels,
        np.arange(len(skill)) // images,
        tuple(f"class {index}" for index in range(classes)),
        probabilities,
        probabilities.argmax(axis=1),
    )


def by(**columns: list) -> dict[str, pd.Series]:
    return {name: groups(pd.Series(values), name) for name, values in columns.items()}


def test_many_numbers_are_cut_at_their_quartiles():
    ages = groups(pd.Series([str(age) for age in range(20, 60)]), "age")
    assert list(ages.cat.categories) == ["20 to 29", "30 to 39", "40 to 49", "50 to 59"]
    assert (ages.value_counts() == 10).all()
    assert ages[12] == "30 to 39"


def test_few_numbers_and_words_are_groups_as_they_are():
    assert list(groups(pd.Series(["10", "9", "10"]), "dose").cat.categories) == ["9", "10"]
    words = groups(pd.Series(["PA", " AP", "", "PA"]), "view")
    assert list(words) == ["PA", "AP", "unknown", "PA"]
    assert list(words.cat.categories) == ["AP", "PA", "unknown"]


def test_a_column_that_names_each_case_is_refused():
    with pytest.raises(ParameterError, match="subgroups=path is not allowed: its 31 values"):
        groups(pd.Series([f"img/{index}.png" for index in range(31)]), "path")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_group_has_the_scores_of_its_cases_alone(classes: int):
    cases = made_cases(np.full(300, 1.0), seed=0, classes=classes)
    sex = np.where(np.arange(300) % 3 == 0, "F", "M")
    table = score_subgroups(cases, by(sex=list(sex)), seed=1)
    assert list(table["group"]) == ["F", "M"]
    for row in table.to_dict("records"):
        inside = sex == row["group"]
        assert (row["cases"], row["patients"]) == (inside.sum(), inside.sum())
        expected = measure(
            cases.labels[inside], cases.probabilities[inside], np.arange(inside.sum()),
            cases.classes, 1, 200,
        ).summary  # fmt: skip
        for metric in METRICS:
            assert row[metric] == pytest.approx(expected[metric].value)
            assert row[f"{metric}_low"] == pytest.approx(expected[metric].low, abs=0.03)
            assert row[f"{metric}_high"] == pytest.approx(expected[metric].high, abs=0.03)


def test_the_difference_is_to_all_other_cases():
    cases = made_cases(np.full(400, 1.0), seed=2)
    sites = np.array(["a", "b", "c", "d"])[np.arange(400) % 4]
    table = score_subgroups(cases, by(site=list(sites)), seed=0)
    score = cases.probabilities[:, 1]
    for row in table.to_dict("records"):
        inside = sites == row["group"]
        expected = roc_auc_score(cases.labels[inside], score[inside]) - roc_auc_score(
            cases.labels[~inside], score[~inside]
        )
        assert row["auroc_difference"] == pytest.approx(expected)
        assert row["auroc_difference_low"] <= expected <= row["auroc_difference_high"]


def test_a_group_that_the_model_fails_on_is_named_and_others_are_not():
    old = np.arange(600) % 3 == 0
    cases = made_cases(np.where(old, 0.0, 2.0), seed=3)
    columns = by(age=list(np.where(old, "old", "young")), coin=list("ht" * 300))
    table = score_subgroups(cases, columns, seed=0)
    lines, count = differing(table)
    assert count == 2 * len(METRICS)  # of two groups the second is the mirror of the first
    assert len(lines) == len(METRICS)
    assert lines[0].startswith("age old (200 cases): auroc 0.")
    assert all("coin" not in line for line in lines)
    assert np.isnan(table.loc[table["group"] == "young", "auroc_difference"]).all()


def test_differences_of_nothing_are_off_zero_about_as_often_as_they_say():
    found = compared = 0
    for seed in range(40):
        cases = made_cases(np.full(240, 1.0), seed=100 + seed)
        columns = by(site=[f"s{index % 3}" for index in range(240)])
        lines, count = differing(score_subgroups(cases, columns, seed))
        found, compared = found + len(lines), compared + count
    assert compared == 40 * 3 * len(METRICS)
    assert 0.02 < found / compared < 0.10


def test_a_patient_on_both_sides_is_drawn_with_both():
    """Each patient has one image of each view, answered alike: nothing can differ."""
    one = made_cases(np.full(100, 1.0), seed=4)
    twice = DecidedCases(
        np.repeat(one.labels, 2), np.repeat(one.groups, 2), one.classes,
        np.repeat(one.probabilities, 2, axis=0), np.repeat(one.decisions, 2),
    )  # fmt: skip
    table = score_subgroups(twice, by(view=["AP", "PA"] * 100), seed=0)
    first = table.iloc[0]
    assert (first["patients"], first["cases"]) == (100, 100)
    assert first["auroc_high"] - first["auroc_low"] > 0.05
    assert first["auroc_difference"] == 0
    width = first["auroc_difference_high"] - first["auroc_difference_low"]
    # with independent intervals the width would be 1.4 times
    assert width < 0.6 * (first["auroc_high"] - first["auroc_low"])


def test_groups_that_cannot_be_scored_say_why():
    cases = made_cases(np.full(130, 1.0), seed=5)
    size = np.repeat(["small", "flat", "large"], [19, 30, 81])
    labels = np.where(size == "flat", 0, cases.labels)
    cases = dataclasses.replace(cases, labels=labels)
    table = score_subgroups(cases, by(size=list(size)), 0).set_index("group")
    assert table.loc["small", "note"] == "fewer than 20 cases"
    assert table.loc["flat", "note"] == "no case of class 1"
    assert table.loc["large", "note"] == ""
    assert table.loc[["small", "flat"], METRICS].isna().all(axis=None)
    assert table.loc["large", METRICS].notna().all()


def test_where_the_rest_has_no_scores_nothing_is_compared():
    cases = made_cases(np.full(100, 1.0), seed=6)
    columns = by(ward=["big"] * 85 + ["new"] * 15, country=["here"] * 100)
    table = score_subgroups(cases, columns, 0).set_index("group")
    assert table.loc["big", "note"] == "not compared: the rest has fewer than 20 cases"
    assert differing(table.reset_index()) == ([], 0)
    assert np.isfinite(table.loc["here", "auroc"])


def test_flawless_few_cases_are_no_proof():
    cases = made_cases(np.where(np.arange(220) < 20, 60.0, 1.2), seed=7)
    table = score_subgroups(cases, by(ward=["new"] * 20 + ["old"] * 200), 0)
    row = table.iloc[0]
    assert row["sensitivity"] == row["auroc"] == 1
    positives = int(cases.labels[:20].sum())
    assert row["sensitivity_low"] == pytest.approx(wilson(1.0, positives).low)
    assert row["auroc_low"] == pytest.approx(wilson(1.0, 4 * positives * (20 - positives) / 22).low)
    assert row["sensitivity_difference_low"] < row["sensitivity_difference"]


def test_one_patient_has_scores_without_bounds():
    cases = made_cases(np.full(60, 1.0), seed=8, images=30)
    row = score_subgroups(cases, by(who=["A"] * 30 + ["B"] * 30), 0).iloc[0]
    assert np.isfinite(row["auroc"])
    assert np.isnan([row["auroc_low"], row["auroc_difference_low"]]).all()


def test_the_picture_has_a_dot_a_group_and_a_line_for_all():
    old = np.arange(300) % 3 == 0
    cases = made_cases(np.where(old, 0.0, 2.0), seed=9)
    columns = by(age=list(np.where(old, "old", "young")), ward=["$1"] * 290 + ["2"] * 10)
    table = score_subgroups(cases, columns, 0)
    summary = measure(cases.labels, cases.probabilities, cases.groups, cases.classes, 0, 50).summary
    figure = robustness.subgroup_scores(table, {name: summary[name] for name in METRICS})
    figure.savefig(io.BytesIO())
    names = [each.get_text() for each in figure.axes[0].get_yticklabels()]
    assert names == ["age: old (100)", "age: young (200)", "ward: $1 (290)", "ward: 2 (10)"]
    assert [each.get_text() for each in figure.axes[0].texts] == ["fewer than 20 cases"]
    for axes, metric in zip(figure.axes, METRICS, strict=True):
        alike, differs = (each.lines[0].get_xdata() for each in axes.containers)
        np.testing.assert_array_equal(differs, table[metric][:1])
        np.testing.assert_array_equal(alike, table[metric][1:])
        assert axes.lines[0].get_xdata()[0] == summary[metric].value
