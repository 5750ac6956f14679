"""The project's own files agree with each other and with the settings."""

from __future__ import annotations

import dataclasses
import importlib
import re
import tomllib
import typing
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from medtl.settings import comparison, evaluation, prediction, search, training

ROOT = Path(__file__).parent.parent
ENTRY_POINTS = {
    "main": search.TuneSettings,
    "train": training.TrainSettings,
    "tune": search.TuneSettings,
    "pretrain": training.PretrainSettings,
    "evaluate": evaluation.EvaluateSettings,
    "compare": comparison.CompareSettings,
    "promote": evaluation.PromoteSettings,
    "perturb": evaluation.PerturbSettings,
    "dictionary": evaluation.DictionarySettings,
    "predict": prediction.PredictSettings,
}
TYPES = {str: "string", int: "int", float: "float", bool: "string"}


@pytest.fixture(scope="module")
def project() -> dict:
    return yaml.safe_load((ROOT / "MLproject").read_text())


def test_every_entry_point_is_declared(project):
    assert set(project["entry_points"]) == set(ENTRY_POINTS)


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if name != "main"])
def test_an_entry_point_calls_the_command_of_its_name(name):
    called = importlib.import_module(f"entrypoints.{name}").main
    assert called.name == name
    assert callable(getattr(importlib.import_module(f"medtl.commands.{name}"), name))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlproject_declares_the_settings_with_their_defaults(project, name):
    entry = project["entry_points"][name]
    hints = typing.get_type_hints(ENTRY_POINTS[name])
    declared = entry["parameters"]
    fields = dataclasses.fields(ENTRY_POINTS[name])
    assert list(declared) == [field.name for field in fields]
    for field in fields:
        assert declared[field.name]["type"] == TYPES[hints[field.name]], field.name
        default = declared[field.name]["default"]
        if hints[field.name] is bool:
            default = {"true": True, "false": False}[default]
        assert default == field.default, field.name
        assert f"--{field.name.replace('_', '-')} {{{field.name}}}" in entry["command"]


def test_every_pin_of_conda_lies_in_the_range_of_pyproject():
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pip,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    pins = {Requirement(pin).name: Requirement(pin) for pin in pip}
    ranges = {Requirement(text).name: Requirement(text) for text in pyproject["dependencies"]}
    assert set(pins) == set(ranges)
    for name, pin in pins.items():
        ((specifier),) = pin.specifier
        assert specifier.operator == "==", name
        assert ranges[name].specifier.contains(specifier.version), name
    (python,) = (
        entry.removeprefix("python=")
        for entry in conda["dependencies"]
        if isinstance(entry, str) and entry.startswith("python=")
    )
    assert Requirement(f"python{pyproject['requires-python']}").specifier.contains(f"{python}.0")


def test_every_fault_of_the_page_on_operations_is_shown_by_a_test_that_exists():
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.split("<!-- faults -->")[1].split("<!-- end -->")[0]
    _, _, *rows = table.strip().splitlines()
    for row in rows:
        named = re.findall(r"(tests/\S+\.py)::(\w+)", row.partition("<!--")[2])
        assert named, row
        for file, test in named:
            assert f"\ndef {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
