"""The gate's rule: higher AUROC, with confidence, on the same cases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtl.tracking.gate import GateCases, compared, not_compared

CLASSES = ("clear", "focal")


def cases(noise: float, seed: int, count: int = 200) -> GateCases:
    """Two classes, told apart with so much noise; the same labels and patients every time."""
    labels = np.arange(count) % 2
    positive = 1 / (1 + np.exp(-(labels + noise * np.random.default_rng(seed).normal(size=count))))
    return GateCases(labels, np.arange(count) // 2, CLASSES, np.stack([1 - positive, positive], 1))


def test_a_clearly_better_challenger_takes_over():
    verdict = compared(2, 1, cases(0.3, 1), cases(2.0, 2).probabilities, 0.95, seed=0)
    assert verdict.promoted
    assert verdict.champion == 2
    assert verdict.difference.value > 0.1
    assert "version 2 takes over from version 1" in verdict.reason
    assert "on the same 200 cases" in verdict.reason


def test_a_worse_challenger_stays_outside():
    verdict = compared(2, 1, cases(2.0, 2), cases(0.3, 1).probabilities, 0.95, seed=0)
    assert not verdict.promoted
    assert verdict.champion == 1
    assert "version 2 does not take over from version 1" in verdict.reason


def test_an_equal_challenger_stays_outside():
    same = cases(1.0, 3)
    verdict = compared(2, 1, same, same.probabilities, 0.5, seed=0)
    assert verdict.difference.value == 0
    assert not verdict.promoted


def test_slightly_better_is_enough_only_where_little_confidence_is_asked():
    better, champion = cases(1.0, 4), cases(1.05, 5)
    strict = compared(2, 1, better, champion.probabilities, 0.99, seed=0)
    lenient = compared(2, 1, better, champion.probabilities, 0.5, seed=0)
    assert 0.5 < strict.difference.confidence < 0.99
    assert lenient.promoted
    assert not strict.promoted


@pytest.mark.parametrize("promoted", [True, False])
def test_the_record_is_json(promoted: bool):
    champion = cases(2.0 if promoted else 0.1, 2).probabilities
    verdict = compared(2, 1, cases(0.5, 1), champion, 0.95, seed=0)
    record = json.loads(json.dumps(verdict.record("medtl-x")))
    assert record["promoted"] is promoted
    assert record["model_name"] == "medtl-x"
    assert record["difference"]["confidence"] == verdict.difference.confidence


def test_other_classes_ask_for_another_name():
    verdict = not_compared(2, 1, ("a", "b"), ("a", "c"))
    assert not verdict.promoted
    assert verdict.difference is None
    assert "model_name" in verdict.reason
