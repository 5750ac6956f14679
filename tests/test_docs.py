"""Each command of README, CONTRIBUTING and docs/ is accepted as typed; some are run, small.

A command that is not run stands in `NOT_RUN`, which says why. All are checked: the options exist,
and the settings take the values.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import mlflow
import pytest
import yaml
from mlflow.cli import cli
from packaging.requirements import Requirement

from benchmarks.__main__ import benchmarks
from medtl.training import epoch_budget
from tests.page_commands import PAGES, ROOT, RUN, RUN_BEGINS, UNIQUE, Command, blocks
from tools.generate_reference import ENTRY_POINTS

WIDTH = 80  # characters of a line of code that the site shows without scrolling
OF_TESTS = "GPU_TESTS_ON"  # read by these tests
# of other programs, which this project's commands hand over to
ENVIRONMENT = (
    OF_TESTS,
    "PGPASSWORD",
    "RAY_AUTH_MODE",
    "OMP_NUM_THREADS",
    "UVICORN_LIMIT_CONCURRENCY",
)

OWN_DATA = "another parameter of a command that is run, on the reader's images"
LONG = "takes minutes to hours; the entry point is run with small settings, or by its own tests"
MEASURES = "takes minutes to hours; the tests of benchmarks/ run parts of it"
CHESTXRAY14 = "needs ChestX-ray14: tests/commands/test_chestxray14.py draws a table like it"
DOWNLOADS = "downloads weights or packages"
SERVER = "needs a PostgreSQL or tracking server: run by tests/tracking/test_store.py and others"
MACHINES = (
    "needs several machines or GPUs: tests/distributed/test_ray_cluster.py and test_torchrun.py"
)
FOREIGN = "another program's command, which nothing of this project answers"
STAYS = "a server or site for a browser, which does not end"
# why a command is not run here, by a regular expression for its beginning; the first counts
NOT_RUN = {
    r"(uv )?pip (install|download)": "installs packages: CI does it in a new environment",
    r"mlflow run \. -e \w+ --env-manager uv": "makes an environment with uv, from the network",
    r"mlflow run \. --experiment-name": SERVER,
    r"mlflow run .* storage=": SERVER,
    r"mlflow experiments create": SERVER,
    r"mlflow server": SERVER,
    r"mlflow (ui|models serve)": STAYS,
    r"mlflow models predict": "run by tests/serving/test_handler.py",
    r"mlflow models generate-dockerfile": "run by tests/serving/test_docker_folder.py",
    r"(docker|cp|curl -s http) ?": "needs Docker, which tests do not have",
    r"mkdocs serve": STAYS,
    r"mlflow run .* executor=ray": MACHINES,
    r"(torchrun|ray) ": MACHINES,
    r"mlflow run .* (data=\S*Data_Entry|positive=any)": CHESTXRAY14,
    r"mlflow run .* study=(?!grid)": LONG,
    r"mlflow run .* architecture=(mobilenet|dual)": DOWNLOADS,
    r"mlflow run .* weights=(imagenet|/path)": DOWNLOADS,
    r"mlflow run .* (subgroups|maps|version|rollback|images)=": OWN_DATA,
    r"mlflow run .* (folds|seeds)=": "run small by tests/commands/test_folds.py and others",
    r"mlflow run \. -e predict": "run by tests/commands/test_predict.py",
    r"mlflow run .* data=/path/to/": OWN_DATA,
    r"mlflow run .* data=phantoms-cases": LONG,
    r"mlflow run .* architecture=tiny": "the example of an own architecture: tests/networks/test_registry.py builds it",  # noqa: E501
    r"mlflow run \. -e (train|promote|pretrain|evaluate|compare|perturb) --env-manager local$": LONG,  # noqa: E501
    r"python -m benchmarks": MEASURES,
    r"python -m medtl\.tracking\.relocate": "run by tests/tracking/test_relocate.py",
    r"(python3 -m venv|source|pytest|ruff|mypy|pre-commit|mkdocs build|\.ci/run)": "CI itself",
    r"(sudo|for|cat|do|done|curl -u|base64|printf)": FOREIGN,
    r"'\{'": "the request to a served model: run by test_docs_run.py",
    r"export": "an environment variable: that something reads it is checked",
}  # fmt: skip


def is_run(command: Command) -> bool:
    return command.text in RUN


def reason(command: Command) -> str | None:
    """Returns why a command is not run; None where nothing says so."""
    return next((why for form, why in NOT_RUN.items() if re.match(form, command.text)), None)


def check_entry_point(name: str, arguments: list[str]) -> None:
    main = importlib.import_module(f"entrypoints.{name}").main
    values = main.make_context(name, arguments).params
    values.pop("list_cutoffs", None)
    ENTRY_POINTS[name](**values)


def check_mlflow(words: list[str]) -> None:
    group: click.Command = cli
    path, rest = [], list(words)
    while isinstance(group, click.Group):
        context = click.Context(group)
        path.append(rest.pop(0))
        group = group.get_command(context, path[-1])
        assert group is not None, f"mlflow {' '.join(path)} does not exist"
    options = {name for option in group.params for name in (*option.opts, *option.secondary_opts)}
    given = {word.split("=")[0] for word in rest if word.startswith("-")}
    assert given <= options, f"mlflow {' '.join(path)}: {given - options}"


@cache
def entry_points() -> dict[str, dict]:
    return yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def check_project_run(words: list[str]) -> None:
    check_mlflow(words[1:])
    name = next((value for flag, value in pairwise(words) if flag == "-e"), "main")
    given = dict(value.split("=", 1) for flag, value in pairwise(words) if flag == "-P")
    assert set(given) <= set(entry_points()[name]["parameters"])
    check_entry_point(
        "tune" if name == "main" else name,
        [word for key, value in given.items() for word in (f"--{key}", value)],
    )


def check_benchmark(words: list[str]) -> None:
    for option, value in pairwise(words):  # files that a benchmark wants to be there
        if option in ("--data", "--images") and not value.startswith("-") and not value.isdecimal():
            path = Path(value)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
    benchmarks.commands[words[3]].make_context(words[3], list(words[4:]))


def check_install(words: list[str]) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[2:]:
        if word.startswith("."):
            extras = set(re.findall(r"[\w-]+", word.removeprefix(".")))
            assert extras <= set(pyproject["optional-dependencies"]), word
        elif not word.startswith("-"):
            Requirement(word)


def check_variable(assignment: str) -> None:
    name = assignment.split("=", 1)[0]
    if name.startswith("MEDTL_"):
        read = [path for path in (ROOT / "medtl").rglob("*.py") if name in path.read_text()]
        read += [path for path in (ROOT / "entrypoints").rglob("*.py") if name in path.read_text()]
        assert read, name
    elif name.startswith("MLFLOW_"):
        package = Path(mlflow.__file__).parent
        places = (package / "environment_variables.py", package / "server" / "auth" / "config.py")
        text = "".join(path.read_text() for path in places if path.exists())
        assert name in text, name
    else:
        assert name in ENVIRONMENT, name


def check_pytest(words: list[str]) -> None:
    for option, word in pairwise(words):
        if not word.startswith("-") and option not in ("-m", "-k"):
            assert (ROOT / word.partition("::")[0]).exists(), word


def check(command: Command) -> None:
    """Raises where a command could not be given as it stands."""
    words = list(command.words)
    for assignment in command.variables:
        check_variable(assignment)
    if words[:3] == RUN_BEGINS:
        check_project_run(words)
    elif words[:1] == ["mlflow"]:
        check_mlflow(words[1:])
    elif words[:2] == ["pip", "install"]:
        check_install(words)
    elif words[:1] == ["export"]:
        for assignment in words[1:]:
            check_variable(assignment)
    elif words[:1] == ["pytest"]:
        check_pytest(words)
    elif words[:3] == ["python", "-m", "benchmarks"]:
        check_benchmark(words)
    elif words[:2] == ["python", "-m"] or words[:1] == ["torchrun"]:
        module = words[words.index("-m") + 1]
        assert importlib.util.find_spec(module), module
        if module.startswith("entrypoints."):
            check_entry_point(module.partition(".")[2], words[words.index("-m") + 2 :])
    elif words[:1] == ["python"]:
        assert (ROOT / words[1]).exists(), words[1]


@pytest.mark.parametrize("command", UNIQUE, ids=lambda command: command.text[:100])
def test_a_command_can_be_given_as_it_stands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(command)


def test_every_command_is_run_or_has_a_reason_why_not():
    unexplained = [each.text for each in UNIQUE if not is_run(each) and reason(each) is None]
    assert unexplained == []


def test_no_entry_of_the_two_lists_is_left_over():
    assert set(RUN) <= {each.text for each in UNIQUE}
    texts = [each.text for each in UNIQUE if not is_run(each)]
    unused = [form for form in NOT_RUN if not any(re.match(form, text) for text in texts)]
    assert unused == []


def test_every_entry_point_that_the_readme_lists_exists():
    section = (ROOT / "README.md").read_text().split("## Entry points")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == set(ENTRY_POINTS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_section(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def anchors(page: Path) -> set[str]:
    """Returns the anchors that a forge gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_page_of_docs_is_in_the_navigation_of_the_site():
    pages = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    found = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(pages) == found


def test_the_budget_of_a_training_is_that_of_the_code():
    text = " ".join((ROOT / "docs" / "concepts.md").read_text().split())
    epochs = f"({epoch_budget.FEWEST} to {epoch_budget.MOST_OF_ALL_LAYERS} epochs)"
    assert f"for about {epoch_budget.STEPS} steps where all layers are trained {epochs}" in text
    assert f"at most {epoch_budget.MOST}." in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_line_of_code_fits_into_the_column_of_the_site(page):
    code = [block for language in ("sh", "python", "json") for block in blocks(page, language)]
    assert [line for block in code for line in block.splitlines() if len(line) > WIDTH] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


@pytest.mark.slow
def test_the_generator_runs_as_a_program():
    subprocess.run([sys.executable, "tools/generate_reference.py", "--check"], cwd=ROOT, check=True)
