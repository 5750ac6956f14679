"""The page on papers has a section for each study, and its commands can be given."""

from __future__ import annotations

import re
import shlex
import typing
from itertools import pairwise
from pathlib import Path

import yaml

from benchmarks.__main__ import benchmarks
from medtl.settings import comparison, evaluation, search, training
from medtl.settings.comparison import STUDIES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "papers.md").read_text()
SETTINGS = {
    "compare": comparison.CompareSettings,
    "dictionary": evaluation.DictionarySettings,
    "evaluate": evaluation.EvaluateSettings,
    "perturb": evaluation.PerturbSettings,
    "pretrain": training.PretrainSettings,
    "train": training.TrainSettings,
    "tune": search.TuneSettings,
}


def commands(text: str) -> list[list[str]]:
    """Returns the words of each command in the blocks of a text, and in its lines of code."""
    joined = text.replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", joined, flags=re.DOTALL))
    inline = re.findall(r"`((?:mlflow run|python -m)[^`]+)`", joined)
    return [shlex.split(line) for line in (*blocks.splitlines(), *inline) if line.strip()]


def parameters(words: list[str]) -> dict[str, str]:
    """Returns the parameters of a command `mlflow run . -e NAME -P KEY=VALUE ...`."""
    given = [word for flag, word in pairwise(words) if flag == "-P"]
    return dict(word.split("=", 1) for word in given)


def test_each_study_has_one_section_with_its_command():
    sections = [commands(section) for section in PAGE.split("\n## ")[1:]]
    studies = [
        {parameters(words).get("study") for words in section if words[4:5] == ["compare"]}
        for section in sections
    ]
    for study in set(STUDIES) - {"grid"}:
        assert sum(study in asked for asked in studies) == 1, study
    assert sum(any(words[4:5] == ["perturb"] for words in section) for section in sections) == 1


def test_each_run_names_an_entry_point_and_its_parameters():
    declared = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for words in filter(lambda words: words[0] == "mlflow", commands(PAGE)):
        assert words[:4] == ["mlflow", "run", ".", "-e"], words
        entry_point, given = words[4], parameters(words)
        assert set(given) <= set(declared[entry_point]["parameters"]), words
        hints = typing.get_type_hints(SETTINGS[entry_point])
        # a value that the settings refuse raises
        SETTINGS[entry_point](**{name: hints[name](value) for name, value in given.items()})


def test_each_benchmark_exists_and_has_its_options():
    named = [words for words in commands(PAGE) if words[0] == "python"]
    assert named
    for words in named:
        assert words[:3] == ["python", "-m", "benchmarks"], words
        options = {name for option in benchmarks.commands[words[3]].params for name in option.opts}
        assert {word for word in words[4:] if word.startswith("--")} <= options, words


def test_every_link_of_the_page_leads_to_a_section_or_a_file():
    headings = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (ROOT / "docs" / target).exists(), target
