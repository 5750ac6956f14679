"""The origin of a backbone is determined from the settings, before any image is read."""

from __future__ import annotations

import pytest

from medtl.errors import ParameterError
from medtl.pipeline.parameter_checks import outlined
from medtl.pipeline.setup import Origin
from medtl.settings.training import TrainSettings


@pytest.mark.parametrize(("weights", "said"), [("auto", "auto is imagenet"), ("imagenet", "")])
def test_weights_that_are_not_published_are_refused_under_the_value_that_was_typed(
    tmp_path, weights, said
):
    settings = TrainSettings(data=str(tmp_path), architecture="parallel_cnn", weights=weights)
    with pytest.raises(ParameterError, match="backbone of pretrain") as refusal:
        outlined(settings)
    assert str(refusal.value).startswith(f"weights={weights} is not allowed: {said}")


def test_automatic_weights_are_published_ones_for_own_data_and_random_for_embedded(tmp_path):
    own = TrainSettings(data=str(tmp_path), architecture="resnet18")
    assert Origin.of(own).weights == "imagenet"
    embedded = TrainSettings(data="phantoms", architecture="parallel_cnn")
    assert Origin.of(embedded).weights == "random"
