"""The model card says what a clinician must know, and the tags hold the numbers."""

from __future__ import annotations

import dataclasses
import math

import pytest

from medtl.evaluation.jackknife import Interval
from medtl.evaluation.metrics import overall_metrics
from medtl.inference.prediction_sets import PredictionSets
from medtl.inference.predictor import Predictor
from medtl.reporting.model_card import (
    BELOW_TAG,
    CardFacts,
    SplitFacts,
    model_card,
    shortened,
    version_tags,
)


@pytest.fixture
def facts(bundle: Predictor) -> CardFacts:
    counts = {"clear": 30, "focal": 20, "diffuse": 10}
    return CardFacts(
        bundle,
        "patients",
        (SplitFacts("train", 240, 80, 0, counts), SplitFacts("test", 60, 20, 0, counts)),
        {each.name: Interval(0.5, 0.4, 0.6) for each in overall_metrics()}
        | {"auroc": Interval(0.91234, 0.85, 0.95)},
        ("3 images | unreadable",),
    )


def test_the_card_has_its_parts(facts: CardFacts):
    card = model_card(facts, "medtl-phantoms")
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [
        "# medtl-phantoms",
        "## Intended use",
        "## Data",
        "## Scores on the test split",
        "## Operating point",
        "## Calibration",
        "## How it was made",
        "## Limits",
    ]
    assert "not cleared for diagnosis" in card
    assert "\n- **AUROC 0.912** (0.850 to 0.950): " in card
    assert "\n- **test:** 60 images, patients 20: clear 30, focal 20, diffuse 10\n" in card
    assert "\n- focal: 0.400\n" in card
    assert "temperature 1.500" in card
    assert "from the layer `head` on" in card
    assert "- 3 images \\| unreadable" in card


def test_a_dense_layer_stands_in_card_and_tags(facts: CardFacts):
    assert "dense" not in model_card(facts, "medtl-phantoms")
    assert "medtl.hidden" not in version_tags(facts)
    facts = dataclasses.replace(facts, bundle=dataclasses.replace(facts.bundle, hidden=64))
    assert "A dense ReLU layer of 64 units" in model_card(facts, "medtl-phantoms")
    assert version_tags(facts)["medtl.hidden"] == "64"


def test_the_card_says_whether_patients_are_known(facts: CardFacts):
    known = model_card(facts, "medtl-known")
    assert "95 % intervals over patients." in known
    assert "The test split has only 20 patients" in known
    splits = tuple(dataclasses.replace(each, patients=0, unknown=60) for each in facts.splits)
    unit = "images; patients unknown"
    unknown = model_card(dataclasses.replace(facts, unit=unit, splits=splits), "medtl-unknown")
    assert "95 % intervals over images; patients unknown." in unknown
    assert "**test:** 60 images, patients unknown: " in unknown
    assert "images of one patient may be in two splits" in unknown
    assert "Patients are unknown: images of one patient may be in two splits." in unknown
    assert "No known patient is in two splits" not in unknown
    assert "has only 60 images" in unknown
    assert "0 patients" not in unknown


def test_the_card_begins_with_the_scores_and_the_doubts_about_them(facts: CardFacts):
    doubted = dataclasses.replace(facts, below=("the model is worse",), warnings=("a | copy",))
    _title, _, scores, _, below, _, warning, *_ = model_card(doubted, "m").splitlines()
    assert scores.startswith("**Test split, 60 images:** AUROC 0.912 (0.850 to 0.950), ")
    assert below == "**Warning:** the model is worse."
    assert warning == "**Warning:** data report: a \\| copy."


def test_the_card_has_the_values_that_the_training_used(facts: CardFacts):
    assert "- lr:" not in model_card(facts, "m")
    used = dataclasses.replace(facts, training={"lr": "0.001", "images_per_step": "32"})
    making = model_card(used, "m").partition("## How it was made")[2]
    assert "- lr: 0.001\n- images per step: 32" in making


def test_the_card_has_no_table_and_a_name_of_several_lines_stays_in_its_line(facts: CardFacts):
    odd = dataclasses.replace(facts.bundle, classes=("a|b", "c\nd", "e"))
    card = model_card(dataclasses.replace(facts, bundle=odd), "medtl-odd")
    assert not [line for line in card.splitlines() if line.startswith("|")]
    assert "\n- c d: 0." in card


def test_no_name_is_markup(facts: CardFacts):
    names = (
        "[x](javascript:a)",
        "<img src=x onerror=a()>",
        "a`b``c",
        "*d*",
        "e\n# f",
        "_g_ a_h",
    )
    odd = dataclasses.replace(facts.bundle, classes=names, data="`<b>", thresholds=(0.1,) * 6)
    note = "7 images left out (<script>, ![](http://x))"
    card = model_card(dataclasses.replace(facts, bundle=odd, notes=(note,)), "medtl-odd")
    assert "``` `<b> ```" not in card
    assert "set `` `<b> ``, the model" in card
    for shown in (r"\[x\](javascript:a)", r"\<img src=x onerror=a()\>", r"a\`b\`\`c", r"\*d\*",
                  "e # f", r"\_g\_ a_h", r"\<script\>", r"!\[\](http://x)"):  # fmt: skip
        assert shown in card
    text = card.replace("\\<", "").replace("\\[", "").replace("`` `<b> ``", "")
    assert "<" not in text
    assert "[" not in text


def test_every_measure_of_the_interface_stands_in_the_card(facts: CardFacts):
    metrics = overall_metrics()
    one_each = {each.name: Interval(index / 10, 0, 1) for index, each in enumerate(metrics)}
    card = model_card(dataclasses.replace(facts, scores=one_each), "medtl-phantoms")
    for metric in metrics:
        assert f"**{metric.label} {one_each[metric.name].value:.3f}**" in card


def test_an_interval_that_cannot_be_given_says_so(facts: CardFacts):
    alone = {"auroc": Interval(0.9, math.nan, math.nan)}
    card = model_card(dataclasses.replace(facts, scores=alone), "medtl-phantoms")
    assert "**AUROC 0.900** (none: too few cases)" in card


def test_phantoms_and_few_patients_are_named_as_limits(facts: CardFacts):
    card = model_card(facts, "medtl-phantoms")
    assert "Phantoms are drawn by a program" in card
    assert "only 20 patients" in card
    real = dataclasses.replace(facts, bundle=dataclasses.replace(facts.bundle, data="chest"))
    assert "drawn by a program" not in model_card(real, "medtl-chest")


def test_the_card_says_how_many_familiar_images_are_called_strange(facts: CardFacts):
    for expected, said in (
        (1 / 41, "false for about 1 of 41 images like these (so few were there"),
        (0.01, "false for about 1 of 100 images like these; true"),
        (None, "true for about 99 of 100 images like these; true"),
    ):
        domain = dataclasses.replace(facts.bundle.domain, expected=expected)
        bundle = dataclasses.replace(facts.bundle, domain=domain)
        card = model_card(dataclasses.replace(facts, bundle=bundle), "wards")
        assert f"`in_domain` is {said}" in card


def test_two_classes_name_the_one_that_is_looked_for(facts: CardFacts):
    two = dataclasses.replace(facts.bundle, classes=("normal", "bacteria"), thresholds=(0.6, 0.4))
    card = model_card(dataclasses.replace(facts, bundle=two), "medtl-chest")
    assert "The class looked for is `bacteria`" in card
    assert "`bacteria` from its threshold on" in card


def test_the_card_says_how_the_operating_point_was_chosen(facts: CardFacts):
    assert "where sensitivity + specificity for its class is highest" in model_card(facts, "m")
    demanded = dataclasses.replace(facts.bundle, sensitivity=0.95)
    card = model_card(dataclasses.replace(facts, bundle=demanded), "m")
    assert "at least 95 % of its images in the validation split reach" in card
    assert "sensitivity + specificity" not in card
    two = dataclasses.replace(demanded, classes=("normal", "bacteria"), thresholds=(0.9, 0.1))
    card = model_card(dataclasses.replace(facts, bundle=two), "m")
    assert "finds at least 95 % of the images of `bacteria` in the validation split" in card


def test_the_card_says_what_prediction_sets_promise_and_how_they_were_set(facts: CardFacts):
    assert "prediction_set" not in model_card(facts, "medtl-phantoms")
    sets = PredictionSets(0.9, (0.2, 0.3, 0.4), True, (20, 25, 31), "validation")
    card = model_card(_with(facts, sets), "medtl-phantoms")
    assert "At least 90 % of sets should contain the right class, of each class" in card
    assert "Thresholds by class, on 20 to 31 validation patients of each.\n\n- clear: 0.200" in card
    sets = PredictionSets(0.9, (0.2,) * 3, False, (7, 25, 31), "out-of-fold")
    card = model_card(_with(facts, sets), "medtl-phantoms")
    assert "over all classes together (conformal prediction): roughly: the thresholds are" in card
    assert "as one has only 7 out-of-fold patients" in card


def _with(facts: CardFacts, sets: PredictionSets) -> CardFacts:
    return dataclasses.replace(facts, bundle=dataclasses.replace(facts.bundle, sets=sets))


def test_what_a_baseline_beats_says_so_among_the_limits_and_in_a_tag(facts: CardFacts):
    assert BELOW_TAG not in version_tags(facts)
    facts = dataclasses.replace(facts, below=("the model is below it", "the model is worse"))
    limits = model_card(facts, "m").partition("## Limits")[2]
    assert "\n- The model is below it.\n- The model is worse.\n" in limits
    assert version_tags(facts)[BELOW_TAG] == "the model is below it; the model is worse"


def test_a_card_without_room_keeps_scores_and_limits(facts: CardFacts):
    card = model_card(facts, "eyes")
    assert shortened(card, len(card)) == card
    short = shortened(card, len(card) - 100)
    assert len(short) <= len(card) - 100
    assert short.endswith("model_card.md of the run also has: Calibration.")
    assert "## How it was made" in short
    noted = dataclasses.replace(facts, notes=tuple(f"note {number}" * 20 for number in range(50)))
    short = shortened(model_card(noted, "eyes"), 5000)
    assert len(short) <= 5000
    assert "note 0" in short
    assert "note 49" not in short
    for section in ("Data", "Scores on the test split", "Limits"):
        assert f"## {section}\n" in short
    limits = card.partition("## Limits\n")[2]
    assert limits.strip() in short


def test_tags_hold_the_numbers(facts: CardFacts):
    tags = version_tags(facts)
    assert tags["test_auroc"] == "0.9123"
    assert tags["test_auroc_low"] == "0.8500"
    assert tags["medtl.architecture"] == "squeezenet1_1"
    assert tags["medtl.data"] == "0123456789abcdef"
    assert all(isinstance(value, str) and len(value) <= 5000 for value in tags.values())


@pytest.fixture
def several(facts: CardFacts) -> CardFacts:
    counts = {"clear": 30, "focal": 20, "diffuse": 10}
    splits = (SplitFacts("folds", 240, 80, 0, counts), SplitFacts("test", 60, 20, 0, counts))
    return dataclasses.replace(
        facts,
        bundle=dataclasses.replace(facts.bundle, members=5),
        splits=splits,
        calibrated_on="the out-of-fold predictions of its 5 members",
    )


def test_the_card_of_an_ensemble_says_so_and_on_what_it_was_calibrated(several: CardFacts):
    card = model_card(several, "medtl-phantoms")
    assert "It is an ensemble of 5 members: the mean of their logits." in card
    assert "fitted on the out-of-fold predictions of its 5 members" in card
    assert "chosen on the out-of-fold predictions of its 5 members" in card
    assert "**Test split, 60 images:**" in card
    assert "validation split" not in card
    assert version_tags(several)["medtl.members"] == "5"


def test_the_card_of_an_ensemble_without_a_test_split_speaks_of_none(several: CardFacts):
    untested = dataclasses.replace(several, splits=several.splits[:1], out_of_fold=True)
    card = model_card(untested, "medtl-phantoms")
    assert "**Out-of-fold predictions, 240 images:**" in card
    assert "\n## Out-of-fold scores\n" in card
    assert "the ensemble itself was not tested" in card
    assert "The data set has only 80 patients" in card
    assert "test split" not in card


def test_a_single_model_is_not_called_an_ensemble(facts: CardFacts):
    assert "ensemble" not in model_card(facts, "medtl-phantoms")
    assert "medtl.members" not in version_tags(facts)
