"""Cells whose architecture cannot have their weights."""

from __future__ import annotations

import pytest

from medtl.comparison.plan_checks import checked_plan
from medtl.comparison.study_registry import plan_of
from medtl.errors import ParameterError
from medtl.settings.comparison import CompareSettings

GRID = {"cutoffs": "head", "image_size": 32, "seeds": "0,1"}


def test_weights_that_an_architecture_cannot_have_are_left_out_with_a_note():
    settings = CompareSettings(
        architecture="small_resnet,resnet18", weights="random,imagenet", **GRID
    )
    plan = checked_plan(settings, plan_of(settings))
    assert {(each.architecture, each.weights) for each in plan.cells} == {
        ("small_resnet", "random"), ("resnet18", "random"), ("resnet18", "imagenet"),
    }  # fmt: skip
    assert len(plan.cells) == 3 * 2
    assert all(a in plan.cells and b in plan.cells for a, b in plan.pairs)
    (note,) = [each for each in plan.notes if each.startswith("left out")]
    assert note.startswith("left out: small_resnet with weights imagenet: weights=imagenet")


@pytest.mark.parametrize(
    ("architecture", "weights", "words"),
    [
        ("small_resnet,resnet18", "imagenet", "small_resnet has none"),
        ("small_resnet", "random,imagenet", "small_resnet has none"),
        ("small_resnet,resnet18", "random,own.pth", r"weights=own.pth.*existing"),
    ],
)
def test_an_architecture_or_weights_that_fit_nothing_are_a_wrong_parameter(
    architecture, weights, words
):
    settings = CompareSettings(architecture=architecture, weights=weights, **GRID)
    with pytest.raises(ParameterError, match=words):
        checked_plan(settings, plan_of(settings))
