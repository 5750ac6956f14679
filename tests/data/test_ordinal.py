"""Classes in a given order: the parameter ordinal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtl.data.manifest import read_table
from medtl.errors import ParameterError
from medtl.settings.data import DataSettings, Reading


@pytest.fixture
def eyes(tmp_path: Path) -> Path:
    for seed, name in enumerate(["mild", "none, or scars", "severe"] * 2):
        folder = tmp_path / "eyes" / name
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    return tmp_path / "eyes"


def test_classes_have_the_order_of_the_grades(eyes: Path):
    assert read_table(str(eyes)).classes == ("mild", "none, or scars", "severe")
    table = read_table(str(eyes), Reading(ordinal='"None, or scars",mild,severe'))
    assert table.classes == ("none, or scars", "mild", "severe")
    assert "classes in order (ordinal): none, or scars < mild < severe" in table.notes


def test_of_two_grades_the_higher_is_the_positive_one(eyes: Path):
    table = read_table(str(eyes), Reading(positive="severe", ordinal="severe,negative"))
    assert table.classes == ("severe", "negative")


@pytest.mark.parametrize("order", ["mild,severe", "mild,severe,none", "a,mild,severe,none"])
def test_an_order_that_is_not_of_all_classes_names_them(eyes: Path, order: str):
    message = f'ordinal={order} is not allowed: all classes of eyes.*: mild,"none, or scars",severe'
    with pytest.raises(ParameterError, match=message):
        read_table(str(eyes), Reading(ordinal=order))


def test_findings_and_an_empty_list_have_no_order(eyes: Path):
    table = eyes / "labels.csv"
    table.write_text("path,label\nmild/0.png,Mass|Edema\nmild/3.png,Mass\nsevere/2.png,Edema\n")
    with pytest.raises(ParameterError, match="several labels, which have no order"):
        read_table(str(table), Reading(ordinal="Mass,Edema"))
    with pytest.raises(ParameterError, match="at least one entry"):
        DataSettings(ordinal=" , ")
