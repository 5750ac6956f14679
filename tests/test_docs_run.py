"""Commands of README and docs/ run as they stand, with small values and drawn images."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from tests.page_commands import ROOT, RUN, RUN_BEGINS, UNIQUE, Command, blocks

# Small values in place of those of the page; the reader's data is drawn.

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
