"""Values that hold several entries are read as they are meant, or refused in one line."""

from __future__ import annotations

import pytest

from medtl.errors import ParameterError
from medtl.options import named_lists
from medtl.settings import EvaluateSettings


def test_named_lists_keep_names_entries_and_order():
    text = " pneumonia = bacteria | virus|virus , healthy=normal,other="
    assert named_lists("mapping", text) == {
        "pneumonia": ("bacteria", "virus"),
        "healthy": ("normal",),
        "other": (),
    }
    assert named_lists("mapping", "") == {}


@pytest.mark.parametrize("text", ["pneumonia", "=virus", "a=b=c", "a=b,a=c"])
def test_other_forms_are_refused_at_the_door(text: str):
    with pytest.raises(ParameterError, match="a comma list of NAME=A, "):
        EvaluateSettings(mapping=text)
