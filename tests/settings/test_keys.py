"""Keys of searches, cells, backbones and runs stay those of earlier releases."""

from __future__ import annotations

import dataclasses

import pytest

from medtl.cache import content_key
from medtl.comparison.runner import OF_CELL
from medtl.pipeline.pretraining import _recipe_key
from medtl.settings.comparison import CompareSettings
from medtl.settings.fields import TRAINING, Settings, key_values, option
from medtl.settings.search import TuneSettings
from medtl.settings.training import LearningSettings, PretrainSettings
from medtl.tracking.runs import question_key
from tools.generate_reference import ENTRY_POINTS

QUESTIONS = {
    "train": "3bce57bf6c7e70e65c1487cc",
    "tune": "fd5daae076c6765cd7f755a2",
    "evaluate": "401adc054fbd875e03f8949d",
    "promote": "e384627b2bf1b7ea037c340d",
    "pretrain": "156b62ffe16430eed22b5c22",
    "compare": "0a9c4e157eced25be2c80ca9",
    "dictionary": "5f682becdb8c4256b75ed4ee",
    "perturb": "f34a88258dd0bdcbd86d60ab",
}
"""Keys of the runs of version 0.1, all parameters at their defaults."""


@pytest.mark.parametrize("name", QUESTIONS)
def test_runs_of_earlier_releases_are_found(name):
    assert question_key(name, ENTRY_POINTS[name]()) == QUESTIONS[name]


def test_what_changes_no_result_is_in_no_key():
    asked = TuneSettings(data="/some/where", epochs=3, positive="any", study="s")
    key = "507e8f491e8c269202a1aa99"
    for other in ({}, {"trials": 40, "device": "cuda", "timeout": 5.0, "keep": "never"}):
        assert question_key("tune", dataclasses.replace(asked, **other)) == key
    assert question_key("tune", dataclasses.replace(asked, lr_low=1e-3)) != key


def test_searches_of_earlier_releases_are_continued():
    for settings, key in (
        (TuneSettings(), "746a5cd4b65c34847ad0f8fb"),
        (TuneSettings(epochs=3, lr_low=1e-3), "2b12cea286d0364d78b66ae3"),
    ):
        assert content_key(key_values(settings, TRAINING)) == key


def test_cells_of_earlier_releases_are_found():
    for settings, key in (
        (CompareSettings(), "55d9553159d0fc7ab20275ce"),
        (CompareSettings(epochs=3, seed=4), "dfab2c3802b6d4d518dc4466"),
    ):
        shared = key_values(settings, TRAINING, declared_by=LearningSettings)
        of_all = {name: value for name, value in shared.items() if name not in OF_CELL}
        assert content_key(of_all) == key


def test_backbones_of_earlier_releases_are_found():
    assert _recipe_key(PretrainSettings(), "x") == "08715d85916ce3d2a1cc5a8a"
    drawn = PretrainSettings(data="/a", train_images=4)
    assert _recipe_key(drawn, "x") == "299c3f1b962febde4ea18379"


@dataclasses.dataclass(frozen=True)
class Extended(Settings):
    old: int = option(1, "of an earlier release", changes_result=True)
    new: int = option(2, "of this release", changes_result=True, added_later=True)
    device: str = option("cpu", "where", changes_result=False)


def test_a_parameter_added_later_is_in_keys_only_where_it_is_given():
    assert key_values(Extended()) == {"old": 1}
    assert key_values(Extended(new=3, device="cuda")) == {"old": 1, "new": 3}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_parameter_says_whether_it_changes_a_result(name):
    for field in dataclasses.fields(ENTRY_POINTS[name]):
        assert isinstance(field.metadata["changes_result"], bool), field.name
