"""A study is added by one file in a folder of the package `medtl.comparison.papers`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medtl.comparison.study_registry import register_study
from medtl.errors import MedtlError

STUDY = '''
"""Smith 2030: two heads."""

from medtl.comparison.design import Cell, Plan, paired, repeated
from medtl.comparison.study_registry import register_study


@register_study
def smith2030(settings):
    """Plans a linear head against logistic regression on the features."""
    cells = repeated(
        (
            Cell("head", "small_resnet", "random", cutoff="head"),
            Cell.hybrid("hybrid", "small_resnet", "logistic", "random"),
        ),
        (1.0,),
        (0,),
    )
    pairs = paired(cells, lambda cell: cell.series == "head")
    return Plan("smith2030", "Two heads", "Smith 2030", "auroc", cells, pairs)
'''
RUN = """
import sys
import medtl.comparison.papers
medtl.comparison.papers.__path__.append(sys.argv.pop(1))
from entrypoints.compare import main
main()
"""


@pytest.fixture
def added(tmp_path: Path):
    """Returns a function that calls `compare` with a study from a temporary folder."""
    (tmp_path / "smith2030.py").write_text(STUDY)

    def compare(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path), *options],
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )

    return compare


def test_an_added_study_is_an_allowed_value(added):
    answer = added("--help")
    assert answer.returncode == 0, answer.stderr
    assert "smith2030" in answer.stdout


@pytest.mark.slow
def test_an_added_study_runs(added, small_phantoms):
    answer = added("--study=smith2030", f"--data={small_phantoms}", "--image-size=32")
    assert answer.returncode == 0, answer.stderr
    assert "smith2030: 2 of 2 cells" in answer.stdout


def test_function_and_module_of_a_study_have_the_same_name():
    def other(settings):
        raise NotImplementedError

    with pytest.raises(MedtlError, match="give both the same name"):
        register_study(other)
