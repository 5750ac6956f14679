from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from medtl.evaluation.confidence_intervals import mean_difference, paired_difference


def test_repeats_are_averaged(comparison, cases, scored):
    arm = comparison.arms.set_index("arm").loc["random"]
    each = [accuracy_score(cases.labels, scored(0.1, seed).argmax(axis=1)) for seed in (0, 1)]
    assert arm["score"] == pytest.approx(np.mean(each))
    assert arm["seeds"] == 2
    assert arm["low"] < arm["score"] < arm["high"]
    (row,) = comparison.differences.to_dict("records")
    assert (row["a"], row["b"], row["seeds"]) == ("random", "pretrained", 2)
    assert row["low"] > 0


def test_one_pair_is_the_paired_difference(cases, scored):
    a, b = scored(0.1), scored(0.4)
    one = paired_difference(cases.labels, a, b, cases.groups, "auroc", seed=1, resamples=200)
    same = mean_difference(cases.labels, [(a, b)] * 2, cases.groups, "auroc", seed=1, resamples=200)
    assert same.low == pytest.approx(one.low)
    assert same.confidence == one.confidence


def test_the_table_has_every_cell(comparison):
    table = comparison.table()
    assert list(table["state"]) == ["complete"] * 4 + ["failed"]
    assert table["error"].iloc[-1].startswith("<b>out</b>")
    complete = table[table["state"] == "complete"]
    assert (complete["test_auroc_low"] <= complete["test_auroc"]).all()
