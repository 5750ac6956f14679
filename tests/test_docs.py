"""Each command of README, CONTRIBUTING and docs/ is accepted as typed; some are run, small.

A command that is not run stands in `NOT_RUN`, which says why. All are checked: the options exist,
and the settings take the values.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.cli import cli
from packaging.requirements import Requirement
from PIL import Image

from benchmarks.__main__ import benchmarks
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.training import epoch_budget
from tools.generate_reference import ENTRY_POINTS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
RUN_BEGINS = ["mlflow", "run", "."]
# of other programs, which this project's commands hand over to
ENVIRONMENT = ("PGPASSWORD", "RAY_AUTH_MODE", "OMP_NUM_THREADS", "UVICORN_LIMIT_CONCURRENCY")

# Run below, in this order, in the syntax of the pages.
RUN_HERE = """
python -m entrypoints.train --list-cutoffs --architecture densenet121
mlflow run . -e tune --env-manager local
mlflow run . -e train --env-manager local -P weights=random -P cutoff=all -P model_name=medtl-random
mlflow run . -e perturb --env-manager local -P models=models:/medtl-random/1
mlflow run . -e pretrain --env-manager local -P data=digits -P architecture=small_resnet \\
  -P backbone_name=digits-backbone
mlflow run . -e train --env-manager local -P architecture=small_resnet \\
  -P weights=models:/digits-backbone/1
mlflow run . -e train --env-manager local -P transfer=hybrid -P classifier=svm -P pca=50
mlflow run . -e dictionary --env-manager local
mlflow run . -e tune --env-manager local -P data=/path/to/images \\
  -P patient_pattern='(person[0-9]+)_'
mlflow run . -e tune --env-manager local -P data=/path/to/labels.csv
mlflow run . -e tune --env-manager local -P data=/path/to/cases.csv -P architecture=transmed
mlflow run . -e tune --env-manager local -P data=phantoms-findings
mlflow run . -e compare --env-manager local -P study=grid -P cutoffs=head,layer4 -P seeds=0,1
mlflow run . -e train --env-manager local -P data=chest/labels.csv -P duplicates=allow \\
  -P weights=imagenet -P architecture=mobilenet_v2 -P image_size=128 -P cutoff=features.14 \\
  -P epochs=3 -P model_name=medtl-chest
mlflow run . -e evaluate --env-manager local -P model=models:/medtl-chest@champion \\
  -P against=natural,blood,ultrasound
mlflow run . -e evaluate --env-manager local -P model=models:/medtl-chest@champion \\
  -P data=/path/to/clinic.csv -P split=all \\
  -P mapping="pneumonia=bacteria|virus,healthy=normal,other="
mlflow run . -e promote --env-manager local -P model_name=medtl-chest
mlflow models serve -m models:/medtl-phantoms@champion --env-manager local --port 5001
python tools/generate_reference.py
"""

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
    r"(uv )?pip install": "installs packages: CI does it in a new environment",
    r"mlflow run \. -e \w+ --env-manager uv": "makes an environment with uv, from the network",
    r"mlflow run \. --experiment-name": SERVER,
    r"mlflow run .* storage=": SERVER,
    r"mlflow experiments create": SERVER,
    r"mlflow server": SERVER,
    r"mlflow (ui|models serve)": STAYS,
    r"mkdocs serve": STAYS,
    r"mlflow run .* executor=ray": MACHINES,
    r"(torchrun|ray) ": MACHINES,
    r"mlflow run .* (data=\S*Data_Entry|positive=any)": CHESTXRAY14,
    r"mlflow run .* study=(?!grid)": LONG,
    r"mlflow run .* architecture=(mobilenet|dual)": DOWNLOADS,
    r"mlflow run .* weights=(imagenet|/path)": DOWNLOADS,
    r"mlflow run .* (subgroups|maps|version|rollback|images)=": OWN_DATA,
    r"mlflow run .* data=/path/to/": OWN_DATA,
    r"mlflow run .* data=phantoms-cases": LONG,
    r"mlflow run \. -e (train|promote|pretrain|evaluate|compare|perturb) --env-manager local$": LONG,  # noqa: E501
    r"python -m benchmarks": MEASURES,
    r"python -m medtl\.tracking\.relocate": "run by tests/tracking/test_relocate.py",
    r"(python3 -m venv|source|pytest|ruff|mkdocs build|\.ci/run)": "is how tests and CI are run",
    r"(sudo|for|cat|do|done|curl -u)": FOREIGN,
    r"'\{'": "the request to a served model: run below, as it stands, by check_served",
    r"export": "an environment variable: that something reads it is checked",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command of a page: its words, and the variables set for it alone."""

    page: Path
    words: tuple[str, ...]
    variables: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return shlex.join(self.words)


def blocks(page: Path, language: str = "sh") -> list[str]:
    """Returns the text of each fenced block of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def commands_of(page: Path) -> Iterator[Command]:
    """Yields the commands of a page."""
    for block in blocks(page):
        yield from commands_in(block, page)


def commands_in(block: str, page: Path = ROOT) -> Iterator[Command]:
    """Yields the commands of a shell script: those of its lines, parted at `&&`."""
    text = re.sub(r"<<(\w+)\n.*?\n\1\n", "\n", block.replace("\\\n", " "), flags=re.DOTALL)
    pending = ""
    for line in text.splitlines():
        pending += line + "\n"
        if pending.rstrip().endswith("|"):
            continue
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation that goes on in the next line
            continue
        pending = ""
        for each in _split(words, "&&"):
            count = next((n for n, word in enumerate(each) if not _is_set(word)), len(each))
            yield Command(page, tuple(each[count:]), tuple(each[:count]))
    assert not pending, f"{page.name}: a quotation without an end: {pending}"


def _is_set(word: str) -> bool:
    return re.match(r"[A-Z_]+=", word) is not None


def _split(words: list[str], sign: str) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, sign]:
        if word != sign:
            part.append(word)
        elif part:
            yield part
            part = []


COMMANDS = [command for page in PAGES for command in commands_of(page)]
UNIQUE = list({command.text: command for command in COMMANDS}.values())
RUN = [command.text for command in commands_in(RUN_HERE)]


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
    for word in words[1:]:
        if not word.startswith("-") and word != "slow":
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


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


# The commands that are run. Values are replaced by small ones, and data of the reader by drawn
# images; all else is as on the page.

# random weights: the backbone of the phantoms takes a minute to pretrain
BRIEF = {"epochs": "1", "views": "1", "weights": "random"}
SMALL = {
    "tune": BRIEF | {"trials": "1"},
    "train": BRIEF,
    "pretrain": {"epochs": "1", "train_images": "100"},
    "compare": BRIEF | {"rates": "0.001"},
    "perturb": {"zeta": "0.04", "passes": "1", "most_images": "8"},
}
WITHOUT_DOWNLOAD = {"architecture": "small_resnet", "image_size": "32"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a store, a cache, and the data that the pages name."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "own" / "images").mkdir(parents=True)
    (folder / "own" / "phantoms").mkdir()
    write_chest_phantoms(folder / "own" / "phantoms", patients=40, image_size=48)
    table = pd.read_csv(folder / "own" / "phantoms" / "labels.csv")
    for number, row in enumerate(table.itertuples()):
        image = folder / "own" / "phantoms" / row.path
        place = folder / "own" / "images" / row.label
        place.mkdir(exist_ok=True)
        person = int(re.sub(r"\D", "", row.patient))
        shutil.copy(image, place / f"person{person}_{number}{image.suffix}")
    table.assign(path="phantoms/" + table["path"]).to_csv(
        folder / "own" / "labels.csv", index=False
    )
    draw_cases(folder / "own")
    draw_chest(folder / "chest")
    draw_chest(folder / "own" / "clinic")
    names = {"bacteria": "pneumonia", "virus": "other", "normal": "healthy"}
    (block,) = blocks(ROOT / "docs" / "data.md", "python")
    for place in (folder / "chest", folder / "own" / "clinic"):
        subprocess.run([sys.executable, "-c", block], cwd=place, check=True)
    clinic = pd.read_csv(folder / "own" / "clinic" / "labels.csv")
    clinic["path"] = "clinic/" + clinic["path"]
    clinic["label"] = clinic["label"].replace(names)
    clinic.to_csv(folder / "own" / "clinic.csv", index=False)
    for number, name in enumerate(("natural", "blood", "ultrasound")):
        (folder / name).mkdir()
        for index in range(8):
            noise(folder / name / f"{index}.png", seed=100 * number + index)
    return folder


def noise(path: Path, seed: int, brightness: float = 0.0) -> None:
    """Writes a grey image of 48 pixels with a blurred texture."""
    values = np.random.default_rng(seed).normal(128 + brightness, 40, (12, 12)).clip(0, 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC).save(path)


def draw_chest(folder: Path) -> None:
    """Draws images in the folders and under the names of the published chest X-rays."""
    seed = len(folder.parts)
    for split, persons in (("train", 24), ("test", 12)):
        for person in range(persons):
            names = (
                f"PNEUMONIA/person{person}_bacteria_{person}.jpeg",
                f"PNEUMONIA/person{person + 100}_virus_{person}.jpeg",
                f"NORMAL/IM-{person:04d}-0001.jpeg",
                f"NORMAL/NORMAL2-IM-{person:04d}-0001.jpeg",
            )
            for kind, name in enumerate(names):
                seed += 1
                noise(folder / split / name, 1000 * len(str(folder)) + seed, 30.0 * min(kind, 2))


def draw_cases(folder: Path) -> None:
    """Draws cases of two modalities and their table."""
    rows = []
    for case in range(40):
        label = ("benign", "malignant")[case % 2]
        for number, modality in enumerate(("t1", "t2")):
            path = f"cases/{case}_{modality}.png"
            noise(folder / path, seed=2 * case + number, brightness=40.0 * (case % 2))
            rows.append((path, label, f"P{case}", f"C{case}", modality))
    table = pd.DataFrame(rows, columns=["path", "label", "patient", "case", "modality"])
    table.to_csv(folder / "cases.csv", index=False)


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    monkeypatch.setenv("MEDTL_CACHE", str(project / "cache"))
    return project


def small(name: str, given: dict[str, str], project: Path) -> dict[str, str]:
    """Returns the parameters of a command with small values and drawn data."""
    given = {key: value.replace("/path/to", str(project / "own")) for key, value in given.items()}
    own = given.get("data", "") not in ("", "phantoms-findings", "digits")
    changed = dict(SMALL.get(name, {}))
    if given.get("weights", "").startswith("models:/"):
        del changed["weights"]
    if own and name in ("train", "tune"):
        changed |= WITHOUT_DOWNLOAD
        if given.get("architecture") == "transmed":
            changed["architecture"] = "transmed:small_resnet"
        if "cutoff" in given:
            changed["cutoff"] = "layer4"
    return given | changed


def run_here(command: Command, project: Path) -> None:
    """Runs an entry point in this process, as `mlflow run` would start it."""
    words = list(command.words)
    if words[:3] == RUN_BEGINS:
        name = words[words.index("-e") + 1]
        given = dict(value.split("=", 1) for flag, value in pairwise(words) if flag == "-P")
        given = small(name, given, project)
        arguments = [word for key, value in given.items() for word in (f"--{key}", value)]
    else:
        name, arguments = words[2].partition(".")[2], words[3:]
    importlib.import_module(f"entrypoints.{name}").main(arguments, standalone_mode=False)


@pytest.mark.slow
def test_the_commands_are_run(in_project, capsys):
    commands = {each.text: each for each in UNIQUE}
    for text in RUN:
        if text.startswith(("mlflow run", "python -m entrypoints")):
            run_here(commands[text], in_project)
    printed = capsys.readouterr().out
    for line in ("densenet121 at 224 px", "registered    medtl-phantoms version 1"):
        assert line in printed
    assert (in_project / "dictionary.csv").exists()
    check_served(commands, in_project)


def check_served(commands: dict[str, Command], project: Path) -> None:
    """Serves the champion from another folder, and sends it the request of the page."""
    (serve,) = (text for text in RUN if text.startswith("mlflow models serve"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = project / "elsewhere"
    folder.mkdir()
    noise(folder / "image.png", seed=1)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    }
    server = subprocess.Popen(
        [port if word == "5001" else word for word in commands[serve].words],
        cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/ping"), server)
        (request,) = (each for each in blocks(ROOT / "docs" / "serving.md") if "curl" in each)
        answer = subprocess.run(
            ["bash", "-c", request.replace("5001", port)],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert '"error": null' in answer.stdout
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def wait_for(reached: Callable[[], object], process: subprocess.Popen) -> None:
    """Waits until a call no longer raises `OSError`, or the process ends."""
    while process.poll() is None:
        try:
            reached()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"the server ended with status {process.returncode}")


@pytest.mark.slow
def test_the_generator_runs_as_a_program():
    subprocess.run([sys.executable, "tools/generate_reference.py", "--check"], cwd=ROOT, check=True)
