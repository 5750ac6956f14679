"""The registry: one champion, moved by the gate, by hand and back; every version with its card."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError, ParameterError
from medtl.evaluation.jackknife import Interval
from medtl.inference.label_record import Agreement
from medtl.inference.predictor import Predictor
from medtl.reporting.model_card import CardFacts
from medtl.tracking.promotion_gate import GateCases, Scores, Verdict
from medtl.tracking.registry import (
    champion_version,
    gate,
    newest_version,
    promote_version,
    register,
    rollback,
)
from medtl.tracking.runs import SUCCESSOR_TAG

NAME = "medtl-phantoms"
LABELS = np.arange(90) % 3
CODES = np.arange(90)


@pytest.fixture
def facts(bundle: Predictor) -> CardFacts:
    return CardFacts(bundle, "patients", (), {"auroc": Interval(0.9, 0.8, 0.95)})


def scores(noise: float, seed: int) -> Scores:
    """Probabilities [90, 3] for LABELS, the worse the noisier, of a model that saw no case."""
    raised = np.exp(np.eye(3)[LABELS] + noise * np.random.default_rng(seed).normal(size=(90, 3)))
    return Scores(raised / raised.sum(axis=1, keepdims=True), np.zeros(90, bool))


def challenge(
    model: ModelInfo, facts: CardFacts, own: Scores, of_champion: Scores | None = None
) -> Verdict:
    """Registers a version with these scores; the champion, when it is asked, has the others."""

    def score_champion(champion: Predictor) -> Scores:
        assert of_champion is not None, "the champion must not be scored"
        assert champion.classes == facts.bundle.classes
        return of_champion

    cases = GateCases(LABELS, np.arange(90), facts.bundle.classes, own, CODES)
    return gate(NAME, register(model, facts, NAME), cases, score_champion, 0.95, seed=0)


def aliases() -> dict[str, int]:
    found = MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(version) for alias, version in found.items()}


def test_the_gate_leaves_one_champion_and_the_last_loser(logged: ModelInfo, facts: CardFacts):
    good, better = scores(1.0, 1), scores(0.2, 2)
    assert challenge(logged, facts, good).promoted
    assert aliases() == {"champion": 1}

    worse = challenge(logged, facts, scores(3.0, 3), good)
    assert (worse.promoted, worse.champion) == (False, 1)
    assert aliases() == {"champion": 1, "challenger": 2}

    winner = challenge(logged, facts, better, good)
    assert winner.promoted
    assert winner.contest.difference.confidence > 0.95
    assert (winner.before, winner.champion) == (1, 3)
    assert aliases() == {"champion": 3, "challenger": 2}
    assert champion_version(NAME) == newest_version(NAME) == 3
    assert MlflowClient().get_model_version(NAME, "3").tags["medtl.gate"] == winner.reason


def test_a_version_carries_its_card_and_its_numbers(logged: ModelInfo, facts: CardFacts):
    version = register(logged, facts, NAME)
    registered = MlflowClient().get_model_version(NAME, str(version))
    assert registered.description.startswith(f"# {NAME}")
    assert registered.tags["test_auroc"] == "0.9000"
    assert registered.run_id == logged.run_id
    assert aliases() == {}
    assert champion_version(NAME) is None


def test_a_champion_of_other_classes_is_not_compared(logged: ModelInfo, facts: CardFacts):
    challenge(logged, facts, scores(1.0, 1))
    other = dataclasses.replace(facts.bundle, classes=("benign", "malignant", "normal"))
    verdict = challenge(logged, dataclasses.replace(facts, bundle=other), scores(0.1, 2))
    assert (verdict.promoted, verdict.champion) == (False, 1)
    assert "model_name of their own" in verdict.reason
    assert aliases() == {"champion": 1}


def test_a_champion_of_one_label_an_image_is_not_asked_about_findings(
    logged: ModelInfo, facts: CardFacts
):
    challenge(logged, facts, scores(1.0, 1))
    findings = (LABELS[:, None] == np.arange(3)).astype(np.int8)
    cases = GateCases(findings, np.arange(90), facts.bundle.classes, scores(0.1, 2), CODES)
    version = register(logged, facts, NAME)
    verdict = gate(NAME, version, cases, lambda _: pytest.fail("scored"), 0.95, seed=0)
    assert "version 2 (any number an image) is not compared" in verdict.reason
    assert "version 1 (one an image), because their labels differ" in verdict.reason
    assert aliases() == {"champion": 1}


def test_a_champion_of_single_images_is_not_asked_about_cases(logged: ModelInfo, facts: CardFacts):
    challenge(logged, facts, scores(1.0, 1))
    classes, modalities = facts.bundle.classes, ("t1", "t2")
    cases = GateCases(LABELS, np.arange(90), classes, scores(0.1, 2), CODES, modalities)
    version = register(logged, facts, NAME)
    verdict = gate(NAME, version, cases, lambda _: pytest.fail("scored"), 0.95, seed=0)
    assert "version 2 (t1, t2) is not compared" in verdict.reason
    assert "version 1 (single images), because their modalities differ" in verdict.reason
    assert aliases() == {"champion": 1}


def test_a_champion_is_not_moved_on_cases_that_it_was_trained_on(
    logged: ModelInfo, facts: CardFacts
):
    first = scores(3.0, 1)
    challenge(logged, facts, first)
    learned = dataclasses.replace(first, seen=np.ones(90, bool))
    verdict = challenge(logged, facts, scores(0.1, 2), learned)
    assert (verdict.promoted, verdict.champion, verdict.contest) == (False, 1, None)
    assert aliases() == {"champion": 1}
    assert MlflowClient().get_model_version(NAME, "2").tags["medtl.gate"] == verdict.reason


def test_a_challenger_that_another_search_overtook_is_compared_anew(
    logged: ModelInfo, facts: CardFacts
):
    first, second, third = scores(3.0, 1), scores(0.1, 2), scores(1.0, 3)
    challenge(logged, facts, first)
    overtaking = register(logged, facts, NAME)
    late = register(logged, facts, NAME)
    asked = []

    def score_champion(_: Predictor) -> Scores:
        asked.append(champion_version(NAME))
        if len(asked) == 1:  # meanwhile another search ends, with a better model
            promote_version(NAME, overtaking)
            return first
        return second

    cases = GateCases(LABELS, np.arange(90), facts.bundle.classes, third, CODES)
    verdict = gate(NAME, late, cases, score_champion, 0.95, seed=0)
    assert asked == [1, overtaking]
    assert not verdict.promoted
    assert aliases() == {"champion": overtaking, "challenger": late}


def test_looks_at_a_test_split_are_counted_over_versions_and_champions(
    logged: ModelInfo, facts: CardFacts
):
    client, first = MlflowClient(), scores(3.0, 1)
    challenge(logged, facts, first)
    for look, noise in enumerate((3.0, 4.0, 0.1), 1):
        verdict = challenge(logged, facts, scores(noise, look + 10), first)
        assert (verdict.contest.look, verdict.contest.asked) == (
            look,
            pytest.approx(1 - 0.05 / (look * (look + 1))),
        )
        assert client.get_model_version(NAME, str(look + 1)).tags["medtl.look"] == str(look)
    assert aliases() == {"champion": 4, "challenger": 3}
    card = client.get_model_version(NAME, "4").description
    assert card.rstrip().endswith("an unbiased score needs new cases.")
    assert "\n- Made champion at look 3 at this test split" in card
    assert "Made champion" not in client.get_model_version(NAME, "3").description

    cases = GateCases(LABELS, np.arange(90), facts.bundle.classes, first, CODES)
    again = [gate(NAME, 2, cases, lambda _: first, 0.95, seed=0) for _ in range(2)]
    assert [each.contest.look for each in again] == [4, 4], "one look, the command given again"
    MlflowClient().delete_model_version(NAME, "2")
    assert challenge(logged, facts, first, first).contest.look == 5, "what was seen was seen"
    fresh = dataclasses.replace(cases, codes=CODES + 1000)
    assert gate(NAME, 5, fresh, lambda _: first, 0.95, seed=0).contest.look == 1, "new test cases"


def test_versions_from_before_looks_were_counted_count_as_one_each(
    logged: ModelInfo, facts: CardFacts
):
    client, good = MlflowClient(), scores(1.0, 1)
    challenge(logged, facts, good)
    for _ in range(2):
        challenge(logged, facts, scores(3.0, 2), good)
    for version in "123":
        client.delete_model_version_tag(NAME, version, "medtl.look")
    for tag in client.get_registered_model(NAME).tags:
        if tag.startswith("medtl.looks."):
            client.delete_registered_model_tag(NAME, tag)
    assert challenge(logged, facts, scores(3.0, 3), good).contest.look == 3
    data = dataclasses.replace(facts.bundle, fingerprint="other")
    elsewhere = dataclasses.replace(facts, bundle=data)
    verdict = challenge(logged, elsewhere, scores(3.0, 3), good)
    assert verdict.contest.look == 2, "on other data only what is on record"


def test_a_champion_that_was_taught_another_question_is_not_compared(
    logged: ModelInfo, facts: CardFacts
):
    first = scores(3.0, 1)
    challenge(logged, facts, first)
    other = dataclasses.replace(first, agreement=Agreement(600, 600))
    verdict = challenge(logged, facts, scores(0.1, 2), other)
    assert (verdict.promoted, verdict.champion, verdict.contest) == (False, 1, None)
    assert "of 600 labels of images common to both data sets 600 differ" in verdict.reason
    assert aliases() == {"champion": 1}
    assert challenge(logged, facts, scores(3.0, 3), first).contest.look == 1, "that was no look"


def test_by_hand_and_back_again(logged: ModelInfo, facts: CardFacts):
    for _ in range(3):
        register(logged, facts, NAME)
    for version in (1, 2, 3):
        verdict = promote_version(NAME, version)
        assert (verdict.promoted, verdict.champion) == (True, version)
    assert "before it was version 2" in verdict.reason
    assert rollback(NAME).champion == 2
    assert rollback(NAME).champion == 1
    with pytest.raises(MedtlError, match=r"no previous champion.*one of 1, 2, 3"):
        rollback(NAME)
    assert aliases() == {"champion": 1}
    promote_version(NAME, 3)
    assert rollback(NAME).champion == 1


def test_the_champion_again_changes_nothing(logged: ModelInfo, facts: CardFacts):
    challenge(logged, facts, scores(1.0, 1))
    assert "is the champion already" in promote_version(NAME, 1).reason
    cases = GateCases(LABELS, np.arange(90), facts.bundle.classes, scores(1.0, 1), CODES)
    assert gate(NAME, 1, cases, lambda _: pytest.fail("scored"), 0.95, seed=0).promoted
    with pytest.raises(MedtlError, match="no previous champion"):
        rollback(NAME)


def test_a_promoted_challenger_is_no_challenger_any_more(logged: ModelInfo, facts: CardFacts):
    good = scores(0.5, 1)
    challenge(logged, facts, good)
    challenge(logged, facts, scores(3.0, 2), good)
    promote_version(NAME, 2)
    assert aliases() == {"champion": 2}


def test_rollback_knows_a_champion_that_was_crowned_in_the_ui(logged: ModelInfo, facts: CardFacts):
    for _ in range(3):
        register(logged, facts, NAME)
    promote_version(NAME, 1)
    MlflowClient().set_registered_model_alias(NAME, "champion", "2")
    promote_version(NAME, 3)
    assert rollback(NAME).champion == 2
    assert rollback(NAME).champion == 1


def test_rollback_passes_over_deleted_versions(logged: ModelInfo, facts: CardFacts):
    for version in (1, 2, 3):
        register(logged, facts, NAME)
        promote_version(NAME, version)
    MlflowClient().delete_model_version(NAME, "2")
    assert rollback(NAME).champion == 1


def test_wrong_names_and_versions_are_wrong_parameters(logged: ModelInfo, facts: CardFacts):
    register(logged, facts, NAME)
    with pytest.raises(ParameterError, match=f"model_name=nobody is not allowed.*{NAME}"):
        rollback("nobody")
    with pytest.raises(ParameterError, match="version=7 is not allowed: one of 1"):
        promote_version(NAME, 7)
    with pytest.raises(ParameterError, match="model_name=a/b is not allowed"):
        register(logged, facts, "a/b")


def test_what_a_run_that_was_cut_off_has_registered_is_not_registered_twice(
    logged: ModelInfo, facts: CardFacts
):
    client = MlflowClient()
    experiment = client.get_run(logged.run_id).info.experiment_id
    version = register(logged, facts, NAME)

    def successor(of: str) -> ModelInfo:
        """The same model, logged by a run that goes on with the work of another."""
        model = copy.copy(logged)
        model._run_id = client.create_run(experiment).info.run_id
        client.set_tag(of, SUCCESSOR_TAG, model.run_id)
        return model

    second = successor(successor(logged.run_id).run_id)
    assert register(second, facts, NAME) == version, "two lives later"
    assert register(logged, facts, NAME) != version, "the same run may register it again"

    network = copy.deepcopy(facts.bundle.network)
    next(network.parameters()).data[0] += 1
    other = dataclasses.replace(facts, bundle=dataclasses.replace(facts.bundle, network=network))
    assert register(second, other, NAME) == newest_version(NAME), "another model"
    stranger = copy.copy(logged)
    stranger._run_id = client.create_run(experiment).info.run_id
    assert register(stranger, facts, NAME) == newest_version(NAME), "a run of its own"
