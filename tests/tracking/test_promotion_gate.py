"""The gate's rule: higher AUROC, with confidence, on the same cases."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medtl.inference.label_record import Agreement
from medtl.tracking.promotion_gate import (
    DIFFERENT_LABELS,
    GateCases,
    Scores,
    compared,
    not_compared,
    percent,
    refusal,
)

CLASSES = ("clear", "focal")
NOTHING = np.zeros(200, bool)


def cases(
    noise: float, seed: int, count: int = 200, seen: np.ndarray | None = NOTHING
) -> GateCases:
    """Two classes, told apart with so much noise; the same labels and patients every time."""
    labels = np.arange(count) % 2
    positive = 1 / (1 + np.exp(-(labels + noise * np.random.default_rng(seed).normal(size=count))))
    scores = Scores(np.stack([1 - positive, positive], axis=1), seen)
    return GateCases(labels, np.arange(count) // 2, CLASSES, scores, np.arange(count))


def test_a_clearly_better_challenger_takes_over():
    verdict = compared(2, 1, cases(0.3, 1), cases(2.0, 2).challenger, 0.95, 1, seed=0)
    assert verdict.promoted
    assert verdict.champion == 2
    contest = verdict.contest
    assert contest.difference.value > 0.1
    gap = contest.challenger_auroc.value - contest.champion_auroc.value
    assert gap == pytest.approx(contest.difference.value)
    assert (verdict.before, contest.cases, contest.left_out) == (1, 200, 0)
    assert "version 2 takes over from version 1" in verdict.reason
    assert "on the same 200 cases; look 1 at this test split: " in verdict.reason
    assert "learned from any of them could not be checked" not in verdict.reason


def test_a_worse_challenger_stays_outside():
    verdict = compared(2, 1, cases(2.0, 2), cases(0.3, 1).challenger, 0.95, 1, seed=0)
    assert not verdict.promoted
    assert verdict.champion == 1
    assert "version 2 does not take over from version 1" in verdict.reason


def test_an_equal_challenger_stays_outside():
    same = cases(1.0, 3)
    verdict = compared(2, 1, same, same.challenger, 0.5, 1, seed=0)
    assert verdict.contest.difference.value == 0
    assert not verdict.promoted


def test_slightly_better_is_enough_only_where_little_confidence_is_asked():
    better, champion = cases(1.0, 4), cases(1.05, 5)
    strict = compared(2, 1, better, champion.challenger, 0.99, 1, seed=0)
    lenient = compared(2, 1, better, champion.challenger, 0.5, 1, seed=0)
    assert 0.5 < strict.contest.difference.confidence < 0.99
    assert lenient.promoted
    assert not strict.promoted


@pytest.mark.parametrize("promoted", [True, False])
def test_the_record_is_json(promoted: bool):
    champion = cases(2.0 if promoted else 0.1, 2).challenger
    verdict = compared(2, 1, cases(0.5, 1), champion, 0.95, 1, seed=0)
    record = json.loads(json.dumps(verdict.record("medtl-x")))
    assert record["promoted"] is promoted
    assert record["model_name"] == "medtl-x"
    assert record["difference"]["confidence"] == verdict.contest.difference.confidence
    assert (record["version"], record["before"], record["cases"]) == (2, 1, 200)


def test_cases_that_either_has_learned_from_are_left_out():
    own, of_champion = NOTHING.copy(), NOTHING.copy()
    own[:40], of_champion[20:60] = True, True
    challenger, champion = cases(0.3, 1, seen=own), cases(2.0, 2, seen=of_champion).challenger
    verdict = compared(2, 1, challenger, champion, 0.95, 1, seed=0)
    assert (verdict.contest.cases, verdict.contest.left_out) == (140, 60)
    assert "on the same 140 cases (60 that one has learned from left out)" in verdict.reason
    fair = ~(own | of_champion)
    left = GateCases(
        challenger.labels[fair],
        challenger.patients[fair],
        CLASSES,
        Scores(challenger.challenger.probabilities[fair], None),
        challenger.codes[fair],
    )
    alone = compared(2, 1, left, Scores(champion.probabilities[fair], None), 0.95, 1, seed=0)
    assert alone.contest.difference == verdict.contest.difference


def test_a_champion_that_knows_the_answers_by_heart_does_not_keep_its_place():
    """It is right on every case that it was trained on, and bad on the others."""
    seen = np.arange(200) < 150
    by_heart = np.eye(2)[np.arange(200) % 2]
    poor = cases(3.0, 2).challenger.probabilities
    champion = Scores(np.where(seen[:, None], by_heart, poor), seen)
    good = cases(0.5, 1)
    assert not compared(2, 1, good, Scores(champion.probabilities, None), 0.95, 1, 0).promoted
    assert compared(2, 1, good, champion, 0.95, 1, seed=0).promoted


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (np.arange(200) >= 19, "one has learned from all but 19, "),
        (np.arange(200) % 2 == 1, "one has learned from all but 100, none of focal, "),
    ],
)
def test_too_few_fair_cases_are_not_compared(seen: np.ndarray, said: str):
    reason = refusal(2, 1, cases(0.3, 1, seen=seen), cases(2.0, 2).challenger)
    assert said in reason
    assert "promote a version by hand" in reason
    assert "\n" not in reason


def test_a_small_test_split_that_nobody_knows_is_compared():
    small = cases(0.01, 1, count=12, seen=np.zeros(12, bool))
    champion = Scores(small.challenger.probabilities[::-1], np.zeros(12, bool))
    assert refusal(2, 1, small, champion) == ""
    assert compared(2, 1, small, champion, 0.95, 1, seed=0).promoted


def test_a_version_without_a_record_is_said_to_be_unchecked():
    verdict = compared(2, 1, cases(0.3, 1), cases(2.0, 2, seen=None).challenger, 0.95, 1, seed=0)
    assert verdict.promoted
    assert "whether version 1 learned from any of them could not be checked" in verdict.reason


def test_other_classes_ask_for_another_name():
    verdict = not_compared(2, 1, "classes", ("a", "b"), ("a", "c"))
    assert not verdict.promoted
    assert verdict.contest is None
    assert "model_name" in verdict.reason
    assert json.loads(json.dumps(verdict.record("medtl-x")))["difference"] is None


@pytest.mark.parametrize(
    ("labels", "differ", "refused"),
    [(200, 200, True), (200, 11, True), (200, 10, False), (4, 1, False), (4, 2, True)],
)
def test_models_that_were_taught_other_labels_are_not_compared(labels, differ, refused):
    challenger, champion = cases(0.3, 1), cases(2.0, 2).challenger
    scores = dataclasses.replace(champion, agreement=Agreement(labels, differ))
    reason = refusal(2, 1, challenger, scores)
    assert bool(reason) is refused
    if refused:
        assert f"of {labels} labels of images common to both data sets {differ} differ" in reason
        assert "separate model_name" in reason
    else:
        said = compared(2, 1, challenger, scores, 0.95, 1, seed=0).reason
        assert "could not be checked" not in said
    assert DIFFERENT_LABELS == 0.05


def test_a_champion_without_a_record_of_labels_is_said_to_be_unchecked():
    verdict = compared(2, 1, cases(0.3, 1), cases(2.0, 2).challenger, 0.95, 1, seed=0)
    assert "whether version 1 was taught the same labels could not be checked" in verdict.reason


def test_the_interval_shown_decides_at_every_look():
    """Checks the rule: promotion if and only if the displayed lower bound is above 0."""
    challenger, verdicts = cases(0.9, 1), []
    for seed in range(2, 5):
        champion = cases(1.2, seed).challenger
        for look in (1, 20):
            verdict = compared(2, 1, challenger, champion, 0.95, look, seed=0)
            found = verdict.contest.difference
            assert verdict.promoted == (found.low > 0) == (found.confidence > verdict.contest.asked)
            assert f"({found.low:+.4f} to {found.high:+.4f}, each bound at" in verdict.reason
            assert f"look {look} at this test split" in verdict.reason
            verdicts.append(verdict.promoted)
    assert 0 < sum(verdicts) < len(verdicts)
    assert "the lower bound at 99.17 % must be above 0" in (
        compared(2, 1, challenger, champion, 0.95, 2, seed=0).reason
    )


def test_percentages_tell_what_is_asked_from_certainty():
    asked = [percent(level) for level in (0.95, 0.975, 1 - 0.05 / 6, 1 - 0.05 / 420, 1.0, 0.5)]
    assert asked == ["95 %", "97.5 %", "99.17 %", "99.988 %", "100 %", "50 %"]


def test_findings_are_compared_where_they_are_known_and_each_must_be_left():
    random = np.random.default_rng(6)
    truth = (random.random((200, 2)) < 0.4).astype(np.int8)
    labels = np.where(random.random((200, 2)) < 0.1, -1, truth).astype(np.int8)
    clear, noisy = (truth + noise * random.normal(size=(200, 2)) for noise in (0.4, 2.0))
    for scores in (clear, noisy):
        scores[labels < 0] = random.normal(size=(labels < 0).sum())
    patients = np.arange(200) // 2
    better = GateCases(labels, patients, ("mass", "nodule"), Scores(clear, NOTHING), patients)
    verdict = compared(2, 1, better, Scores(noisy, NOTHING), 0.95, 1, seed=0)
    assert verdict.promoted
    areas = []
    for index in range(2):
        known = labels[:, index] >= 0
        areas.append(roc_auc_score(labels[known, index], clear[known, index]))
    assert verdict.contest.challenger_auroc.value == pytest.approx(np.mean(areas))
    known_by_one = Scores(noisy, labels[:, 1] == 1)
    assert "none of nodule" in refusal(2, 1, better, known_by_one)
