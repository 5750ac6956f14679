"""MLproject and the parameter tables agree with the settings they are generated from."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from tools.generate_reference import ENTRY_POINTS, ROOT, generated_files


@pytest.mark.parametrize("path", generated_files(), ids=str)
def test_a_generated_file_is_up_to_date(path):
    stale = f"{path} differs from the settings: python tools/generate_reference.py"
    assert (ROOT / path).read_text() == generated_files()[path], stale


def test_no_page_is_left_of_an_entry_point_that_is_gone():
    pages = {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert pages == {*ENTRY_POINTS, "index"}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_page_of_an_entry_point_describes_every_parameter_once(name):
    text = (ROOT / "docs" / "reference" / f"{name}.md").read_text()
    for field in dataclasses.fields(ENTRY_POINTS[name]):
        assert text.count(f"\n| `{field.name}` |") == 1, field.name


def test_main_is_the_search():
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    assert entry_points["main"] == entry_points["tune"]
