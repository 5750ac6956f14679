"""Kills a command on phantoms at random times and compares its result with an undisturbed one.

Each process of the command is killed, with all its child processes, after a time drawn from the
duration of the undisturbed command: during import, pretraining, probe, training, refit, evaluation
or registration. The same command is then started again. A command that ends early is followed by
another in an empty folder. Each must have the result of the undisturbed one. The first search of
`tune` pretrains its backbone; the later ones start from random weights, which takes less time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from benchmarks.killed_command import NAME, Command
from medtl.data.sources.phantoms.datasets import write_chest_phantoms

WRONG = "WRONG "  # prefix of lines on faults
SMALL = {"architecture": "small_resnet", "weights": "random"}
LONG = {"image_size": 48, "epochs": 16, "patience": 16}  # without early stopping
ASKED = {
    "tune": {"study": NAME, "model_name": NAME, "trials": 8, "cutoffs": "layer2,layer3,layer4",
             "image_size": 96},
    "train": {"model_name": NAME, "cutoff": "layer2", "schedule": "two_stage", **LONG},
    "compare": {"study": "grid", "cutoffs": "layer2,layer3,head", "seeds": "0,1",
                "image_size": 48},
    "pretrain": {"backbone_name": NAME, **LONG},
}  # fmt: skip
JOBS = tuple(ASKED)
PRETRAINED = {"data": "phantoms", "epochs": 4, "views": 2, "image_size": 0}
PATIENTS = 120  # about 360 images


@dataclass
class Toll:
    """Counts of kills and of faults; all faults should be 0."""

    kills: Counter = field(default_factory=Counter)  # by the interrupted step
    commands: int = 0
    lost: int = 0  # finished trials or cells that are missing or changed
    running: int = 0  # MLflow runs with status RUNNING after the command has ended
    unlinked: int = 0  # killed runs that do not name the run that continued them
    different: Counter = field(default_factory=Counter)  # commands with another result, by its name


def kill_and_compare(folder: Path, job: str, kills: int, seed: int) -> Iterator[str]:
    """Runs commands until `kills` processes were killed; yields lines of the report."""
    generator, toll = np.random.default_rng(seed), Toll()
    images = folder / "images"
    images.mkdir()
    write_chest_phantoms(images, seed=seed, patients=PATIENTS, image_size=96)
    small = ("small", {"data": images / "labels.csv", **SMALL})
    first = [("pretrained", PRETRAINED)] if job == "tune" else []
    undisturbed: dict[str, tuple[dict[str, object], float]] = {}
    for kind, own in chain(first, repeat(small)):
        if toll.kills.total() >= kills:
            break
        asked = {**ASKED[job], **own}
        if kind not in undisturbed:
            undisturbed[kind] = _undisturbed(folder / f"undisturbed-{kind}", job, asked)
            expected, length = undisturbed[kind]
            yield f"undisturbed, {kind}: {length:.0f} s, {expected['registered']}"
        expected, length = undisturbed[kind]
        toll.commands += 1
        before = toll.kills.total()
        command = Command(folder / f"{job}-{toll.commands}", job, asked)
        command.start()
        while toll.kills.total() < kills and not command.ended(generator.uniform(0, length)):
            toll.kills[command.kill()] += 1
            toll.lost += command.lost()
            if command.is_done():
                break
            command.start()
        if not command.is_done():
            command.ended()
        toll.lost += command.lost()
        _compare(expected, command, toll)
        yield f"{job} {toll.commands}, {kind}: killed {toll.kills.total() - before} times"
    yield from _lines(job, toll)


def _undisturbed(
    folder: Path, job: str, asked: Mapping[str, object]
) -> tuple[dict[str, object], float]:
    """Returns the result of an undisturbed command and its duration in seconds."""
    command, began = Command(folder, job, asked), time.monotonic()
    command.start()
    command.ended()
    return command.result(), time.monotonic() - began


def _compare(expected: Mapping[str, object], command: Command, toll: Toll) -> None:
    runs = command.runs()
    toll.running += sum(run.info.status == "RUNNING" for run in runs)
    toll.unlinked += sum(
        run.info.status == "KILLED" and "medtl.successor" not in run.data.tags for run in runs
    )
    result = command.result()
    for name, value in expected.items():
        toll.different[name] += result[name] != value


def _lines(job: str, toll: Toll) -> Iterator[str]:
    yield f"{toll.kills.total()} kills of {toll.commands} commands ({job}):"
    for what, count in toll.kills.most_common():
        yield f"  {what:<24}{count:>4}"
    counted = {
        "finished trials or cells lost": toll.lost,
        "runs left RUNNING": toll.running,
        "killed runs without successor": toll.unlinked,
        **{f"results with other {name}": count for name, count in toll.different.items()},
    }
    for what, count in counted.items():
        yield f"{WRONG if count else ''}{what:<36}{count:>4}"
