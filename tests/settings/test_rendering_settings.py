"""`window` and `fit`: wrong values are refused, and keys of runs without them stay."""

from __future__ import annotations

import pytest

from medtl.errors import ParameterError
from medtl.settings.fields import TRAINING, key_values
from medtl.settings.training import TrainSettings

WRONG = (
    "40",
    "40/0.5",
    "40/",
    "a/b",
    "40/400,",
    "1/2,3/4,5/6,7/8",
    "nan/4",
    "40/inf",
    "",
    "1e12/1",
)


@pytest.mark.parametrize("window", WRONG)
def test_a_wrong_window_is_refused(window):
    with pytest.raises(ParameterError, match=r"CENTRE/WIDTH of width 1 or more"):
        TrainSettings(window=window)


def test_a_wrong_fit_is_refused():
    with pytest.raises(ParameterError, match="one of squash, pad, crop"):
        TrainSettings(fit="stretch")


def test_only_other_values_than_the_defaults_are_in_keys():
    usual = key_values(TrainSettings(), TRAINING)
    assert not {"window", "fit"} & usual.keys()
    changed = key_values(TrainSettings(window="40/400", fit="pad"), TRAINING)
    assert changed == usual | {"window": "40/400", "fit": "pad"}
