"""Pages escape every text, and an installed package contains their templates."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from medtl.reporting import html
from medtl.reporting.html import ENVIRONMENT, Row, Table

ROOT = Path(__file__).parents[2]
MARKUP = "<b>&\"'"
TABLE = '{% from "parts.html.jinja" import table %}{{ table(content) }}'


def test_every_text_of_a_table_is_escaped():
    rows = [Row(MARKUP, [MARKUP, 1]), Row(MARKUP, failure=MARKUP)]
    text = ENVIRONMENT.from_string(TABLE).render(content=Table(MARKUP, [MARKUP, "b", "c"], rows))
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&amp;") == 6
    assert '<td colspan="2">failed: ' in text


def test_a_template_without_one_of_its_values_is_refused():
    with pytest.raises(UndefinedError):
        html.render("comparison.html.jinja", title="t")


def test_an_installed_package_contains_every_file_beside_the_modules():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = {
        path
        for package, patterns in pyproject["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    files = {path for path in (ROOT / "medtl").rglob("*") if path.is_file()}
    assert packaged == {path for path in files if path.suffix not in (".py", ".pyc")}
    assert any(path.suffix == ".jinja" for path in packaged)
