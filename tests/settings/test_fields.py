"""Values that hold several entries are read as they are meant, or refused in one line."""

from __future__ import annotations

import pytest

from medtl.errors import ParameterError
from medtl.settings.evaluation import EvaluateSettings
from medtl.settings.fields import comma_list, named_lists, quoted


def test_named_lists_keep_names_entries_and_order():
    text = " pneumonia = bacteria | virus|virus , healthy=normal,other="
    assert named_lists("mapping", text) == {
        "pneumonia": ("bacteria", "virus"),
        "healthy": ("normal",),
        "other": (),
    }
    assert named_lists("mapping", "") == {}


AWKWARD = ("Squamous cell carcinoma, NOS", "stage=0", 'called "A"', "a|b", '5" wide', " spaced")


@pytest.mark.parametrize("entry", AWKWARD)
def test_an_entry_in_quotation_marks_may_hold_any_sign(entry: str):
    assert comma_list("positive", f"normal, {quoted(entry)} ,virus") == ("normal", entry, "virus")
    text = f"{quoted(entry)}={quoted(entry)}|b,x={quoted(entry)},y="
    assert named_lists("mapping", text) == {entry: (entry, "b"), "x": (entry,), "y": ()}


def test_plain_entries_need_no_quotation_marks():
    assert comma_list("positive", 'stage=1,5" wide,stage=1,') == ("stage=1", '5" wide')
    assert quoted("No Finding") == "No Finding"


@pytest.mark.parametrize("text", ['"a, b', '"a"b', 'x,"a, b" c'])
def test_quotation_marks_that_do_not_enclose_an_entry_are_refused(text: str):
    with pytest.raises(ParameterError, match="quotation marks around a whole entry"):
        comma_list("positive", text)


@pytest.mark.parametrize("text", ["pneumonia", "=virus", "a=b=c", "a=b,a=c", "a|b=c"])
def test_other_forms_are_refused_at_the_door(text: str):
    with pytest.raises(ParameterError, match="a comma list of NAME=A, "):
        EvaluateSettings(mapping=text)
