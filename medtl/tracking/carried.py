"""The code that a served model carries: what its script imports of this package, and no more.

A tracking server is asked for each file of a model by itself, one after the other, and the whole
package has four times as many files.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import medtl

PACKAGE = Path(medtl.__file__).parent


def carry(script: Path, folder: Path) -> Path:
    """Copies all that `script` imports of this package below `folder`, as a package of its name.

    What is imported only where a function runs is copied too; what is imported only for type
    checkers is not.
    """
    carried = folder / PACKAGE.name
    for path in _files(script):
        copy = carried / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return carried


def _files(script: Path) -> set[Path]:
    """The files of this package that the script needs, itself among them where it is one."""
    needed, waiting = set(), [script]
    while waiting:
        path = waiting.pop()
        if path not in needed:
            needed.add(path)
            waiting += _imported(path)
    return {path for path in needed if path.is_relative_to(PACKAGE)}


def _imported(path: Path) -> Iterator[Path]:
    """The files of this package that a file imports by itself, and the packages they lie in."""
    for name in _names(ast.parse(path.read_text("utf-8"))):
        parts = name.split(".")
        if parts[0] != PACKAGE.name:
            continue
        for count in range(1, len(parts) + 1):
            place = PACKAGE.joinpath(*parts[1:count])
            yield from filter(Path.is_file, (place / "__init__.py", place.with_suffix(".py")))


def _names(node: ast.AST) -> Iterator[str]:
    """The modules imported in a piece of code; what is taken from one may be a module itself."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    if isinstance(node, ast.ImportFrom):
        yield node.module
        yield from (f"{node.module}.{each.name}" for each in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
