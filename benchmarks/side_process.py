"""Each side in its own process, so that threads, memory and cache are separate."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Protocol, cast

from benchmarks.trials import Found, Outcome, Trial

SIDES = {
    "plain": "benchmarks.plain_side:PlainSide",
    "expert": "benchmarks.lightning_side:ExpertSide",
    "medtl": "benchmarks.medtl_side:OurSide",
}


class Side:
    """Worker process of one kind of `SIDES`, which runs requests one after the other."""

    def __init__(self, kind: str, cache: Path, **settings: object) -> None:
        command = [sys.executable, "-m", "benchmarks.side_process", kind, json.dumps(settings)]
        environment = {**os.environ, "MEDTL_CACHE": str(cache)}
        self._cache = cache
        self._process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._requests.close()
        self._process.wait()

    def prepare(self) -> float:
        """Prepares the side; returns the seconds."""
        return self._ask({"do": "prepare"})["seconds"]

    def expect(self, cutoffs: list[str]) -> None:
        """Announces the cut-offs of the trials."""
        self._ask({"do": "expect", "cutoffs": cutoffs})

    def run(self, trial: Trial, epochs: int) -> Outcome:
        """Runs one trial."""
        return Outcome(**self._ask({"do": "run", "trial": asdict(trial), "epochs": epochs}))

    def search_until(self, score: float, epochs: int, limit: float, pruner: str) -> Found:
        """Runs a search until it reaches the score."""
        asked = {"score": score, "epochs": epochs, "limit": limit, "pruner": pruner}
        return Found(**self._ask({"do": "search", **asked}))

    def peak_gb(self) -> float:
        """Returns the peak memory of the process in GB."""
        return self._ask({"do": "peak"})["gb"]

    def disk_gb(self) -> float:
        """Returns the size of its cache in GB."""
        return sum(f.stat().st_size for f in self._cache.rglob("*") if f.is_file()) / 1e9

    def _ask(self, question: dict) -> dict:
        self._requests.write(json.dumps(question) + "\n")
        self._requests.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(f"the process ended during the request {question}")
        return json.loads(answer)


class Trainer(Protocol):
    """Methods of a side, called in its own process."""

    def prepare(self) -> None:
        """Prepares everything before the first trial."""

    def run(self, trial: Trial, epochs: int) -> Iterator[tuple[float, float]]:
        """Yields validation AUROC and seconds since the start of the trial, for each epoch."""


class SearchingTrainer(Trainer, Protocol):
    """Side of `medtl`, which can also search."""

    def expect(self, cutoffs: list[str]) -> None:
        """Announces the cut-offs of the trials."""

    def search_until(self, score: float, epochs: int, limit: float, pruner: str) -> Found:
        """Searches until a validation AUROC is reached."""


def _answer(side: Trainer, question: dict) -> dict:
    match question.pop("do"):
        case "prepare":
            began = os.times().elapsed
            side.prepare()
            return {"seconds": os.times().elapsed - began}
        case "expect":
            cast(SearchingTrainer, side).expect(question["cutoffs"])
            return {}
        case "run":
            pairs = list(side.run(Trial(**question["trial"]), question["epochs"]))
            return {"scores": [score for score, _ in pairs], "seconds": [at for _, at in pairs]}
        case "search":
            return asdict(cast(SearchingTrainer, side).search_until(**question))
        case _:
            return {"gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}


def _work() -> None:
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    folder = Path(settings.pop("folder"))
    module, _, name = SIDES[kind].partition(":")
    side = getattr(import_module(module), name)(folder, **settings)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output must not mix with the answers
    for line in sys.stdin:
        answers.write(json.dumps(_answer(side, json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _work()
