"""Looks at a test split are counted, and their total error is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from medtl.tracking.alpha_spending import (
    KEPT_CASES,
    KEPT_PAIRS,
    TAG,
    Looks,
    confidence_at,
    next_look,
)

CODES = np.random.default_rng(0).integers(-(2**63), 2**63, 1000)


def looked(*pairs: tuple[int, int], codes: np.ndarray = CODES[:40]) -> dict[str, str]:
    """Returns the tags of a registered model after these comparisons on the same cases."""
    tags = {"medtl.champions": "1"}
    for version, champion in pairs:
        look = next_look(tags, version, champion, codes, 0)
        tags[look.tag] = look.text
    return tags


def number(tags: dict[str, str], codes: np.ndarray, version: int = 9) -> int:
    return next_look(tags, version, 1, codes, 0).number


@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.5])
def test_all_looks_together_may_err_as_often_as_is_asked(confidence: float):
    levels = np.array([confidence_at(look, confidence) for look in range(1, 5001)])
    assert (np.diff(levels) > 0).all()
    assert np.sum(1 - levels) == pytest.approx(1 - confidence, rel=1e-3)
    assert np.sum(1 - levels) < 1 - confidence
    assert confidence_at(1, 0.95) == pytest.approx(0.975)


def test_each_comparison_is_a_look_and_the_same_one_again_is_not():
    tags = looked((2, 1), (3, 1), (4, 3))
    assert len([tag for tag in tags if tag.startswith(TAG)]) == 1
    assert number(tags, CODES[:40], version=9) == 4
    assert next_look(tags, 3, 1, CODES[:40], 0).number == 2, "again"
    again = next_look(tags, 3, 1, CODES[:40], 0)
    assert tags[again.tag] == again.text
    assert next_look(tags, 4, 1, CODES[:40], 0).number == 4, "another champion"
    assert next_look(tags, 9, 1, CODES[:40], unrecorded=2).number == 6
    assert next_look({}, 2, 1, CODES[:40], 0).number == 1


@pytest.mark.parametrize("size", [40, 1000])
def test_a_few_cases_more_or_less_do_not_begin_anew(size: int):
    tags = looked((2, 1), (3, 1), codes=CODES[:size])
    random = np.random.default_rng(1)
    new = random.integers(-(2**63), 2**63, 1000)
    assert number(tags, random.permutation(CODES[:size])) == 3, "in any order"
    assert number(tags, CODES[: int(0.6 * size)]) == 3, "a part"
    assert number(tags, np.concatenate([CODES[:size], new[: size // 3]])) == 3, "and some more"
    assert number(tags, np.concatenate([CODES[: size // 4], new[:size]])) == 1, "mostly others"
    assert number(tags, new) == 1


def test_looks_at_overlapping_test_splits_add_up():
    tags = looked((2, 1), (3, 1), codes=CODES[:40])
    other = next_look(tags, 4, 1, CODES[5:40], 0)
    assert other.number == 3
    tags[other.tag] = other.text
    assert number(tags, CODES[:40]) == number(tags, CODES[5:40]) == 4


def test_a_tag_holds_as_much_as_mlflow_keeps():
    pairs = {(1000 + place, 999 + place): place for place in range(5000)}
    looks = Looks(5000, pairs, np.arange(KEPT_CASES, dtype=np.uint32) * 10**7, False)
    assert len(looks.text()) < 5000
    found = Looks.of_text(looks.text())
    assert (found.total, len(found.pairs)) == (5000, KEPT_PAIRS)
    assert found.pairs[5999, 5998] == 4999
