"""Baselines beside a study: which arm is compared with which, in the table and in words."""

from __future__ import annotations

import dataclasses

import pytest

from medtl.evaluation.baseline_gains import (
    ComparisonBaselines,
    Reference,
    compare_with_baselines,
)
from medtl.evaluation.confidence_intervals import mean_difference
from medtl.evaluation.model_comparison import Comparison
from medtl.reporting.baseline_tables import against_baselines, baseline_section


def cell(seed: int, weights: str = "random") -> dict[str, object]:
    place = {"architecture": "net", "weights": weights, "modality": "", "fraction": 1.0}
    return {**place, "seed": seed, "lr": 0.1}


@pytest.fixture(scope="module")
def found(cases, scored) -> ComparisonBaselines:
    """One baseline of random weights a seed, one of pretrained weights for both, one of files."""
    common = {"modality": "", "fraction": 1.0, "kind": "features"}
    references = [
        Reference("random 0", architecture="net", weights="random", seeds=(0,),
                  probabilities=scored(0.5, 5), **common),
        Reference("random 1", architecture="net", weights="random", seeds=(1,),
                  probabilities=scored(0.5, 6), **common),
        Reference("pretrained", architecture="net", weights="imagenet", seeds=(0, 1),
                  probabilities=scored(0.5, 7), **common),
        Reference("files", "files", "", "", "", 1.0, (0, 1), scored(0, 8)),
    ]  # fmt: skip
    arms = {
        "random": [(cell(seed), scored(0.1, seed)) for seed in (0, 1)],
        "pretrained": [(cell(seed, "imagenet"), scored(1.5, seed)) for seed in (0, 1)],
        "another": [(cell(0, "other"), scored(1.5, 0))],
    }
    return compare_with_baselines(cases, references, arms, "accuracy", 0, ("no files",))


def test_an_arm_is_compared_with_the_baseline_of_its_own_backbone_and_seed(found, cases, scored):
    gains = found.gains.set_index("arm")
    assert list(gains.index) == ["random", "pretrained"]
    assert gains.loc["random", "baseline"] == "random 0; random 1"
    pairs = [(scored(0.5, 5), scored(0.1, 0)), (scored(0.5, 6), scored(0.1, 1))]
    expected = mean_difference(cases.labels, pairs, cases.groups, "accuracy", 0)
    assert gains.loc["random", "difference"] == expected.value
    assert gains.loc["random", "high"] == expected.high < 0
    assert gains.loc["pretrained", "low"] > 0
    assert gains["seeds"].tolist() == [2, 2]


def test_baselines_stand_in_a_table_of_their_own_and_in_the_page(
    comparison: Comparison, found: ComparisonBaselines
):
    comparison = dataclasses.replace(comparison, baselines=found)
    table = comparison.table()
    assert list(table["state"]) == ["complete"] * 4 + ["failed"]
    assert list(found.table()["baseline"]) == ["random 0", "random 1", "pretrained", "files"]
    assert found.table()["test_auroc"].between(0, 1).all()
    gains = found.gains.set_index("arm")["difference"]
    assert table["baseline_gain"][:4].tolist() == [gains[arm] for arm in gains.index.repeat(2)]
    assert table["baseline_gain"][4:].isna().all()
    section = baseline_section(comparison, ("accuracy", "auroc"))
    assert section.notes == ("no files",)
    assert list(section.scores.head) == ["baseline", "test accuracy", "test AUROC"]
    assert [row.name for row in section.scores.rows] == list(found.table()["baseline"])
    (first, *_) = section.gains.table.rows
    assert [first.name, *first.values[:2]] == [
        "random", "random 0; random 1", f"{gains['random']:+.3f}",
    ]  # fmt: skip
    said = against_baselines(comparison)
    assert said.startswith(
        "1 of 2 arms is above logistic regression on the frozen features of the same backbone in "
        "test accuracy, with a 95 % interval off zero. 1 is below it, 1 with an interval off zero: "
    )
    assert "off zero: “random” by 0." in said
    assert said.endswith("). No files.")


def test_a_study_without_baselines_says_nothing_of_them(comparison: Comparison):
    assert against_baselines(comparison) == ""
    assert baseline_section(comparison, ("auroc",)) is None
