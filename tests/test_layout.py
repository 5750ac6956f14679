"""The layout of the package: imports run down through the folders, without circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "entrypoints", "commands", "comparison", "tuning", "pipeline", "tracking", "reporting",
    "serving", "evaluation", "training", "inference", "distributed", "data", "settings", "networks",
    "imaging", "ground",
)  # fmt: skip
"""From the top; `ground` stands for the modules beside the folders."""

MOST_LINES = 500


def _modules() -> dict[str, Path]:
    paths = [*(ROOT / "medtl").rglob("*.py"), *(ROOT / "entrypoints").glob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


MODULES = _modules()


def folder_of(module: str) -> str:
    first, *others = module.split(".")
    if first == "entrypoints":
        return first
    return others[0] if others and others[0] in FOLDERS else "ground"


def imports(module: str) -> Iterator[str]:
    """Yields the project's modules that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
            names = [name if name in MODULES else node.module for name in names]
        yield from (name for name in names if name in MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_from_its_own_folder_and_those_below(module):
    own = FOLDERS.index(folder_of(module))
    above = [name for name in imports(module) if FOLDERS.index(folder_of(name)) < own]
    assert not above


def test_no_modules_import_each_other():
    graph = {name: set(imports(name)) - {name} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_every_folder_is_one_of_these():
    here = {path.name for path in (ROOT / "medtl").iterdir() if (path / "__init__.py").exists()}
    assert here == set(FOLDERS) - {"entrypoints", "ground"}


def test_no_module_is_long():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_the_page_on_the_layout_of_the_code_names_every_folder():
    page = (ROOT / "docs" / "code-layout.md").read_text("utf-8")
    assert [name for name in FOLDERS[:-1] if f"`{name}/`" not in page] == []
