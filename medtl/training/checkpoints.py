"""Checkpoints: saved state of a training, from which a killed one is resumed.

A checkpoint is a folder with the state after an epoch and its checksum. It is written atomically,
its key covers everything that the training depends on, and loading it executes no code. The clock
decides how often one is written, and so how much is repeated after a kill, but never the result.
The final state of a finished training is kept until its MLflow run has ended.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch

from medtl.cache import (
    atomic_directory,
    cache_root,
    checksum,
    content_key,
    is_abandoned,
    kept_folder,
)
from medtl.errors import MedtlError

KIND = "checkpoints"
FORMAT = 3  # of checkpoints; a new number invalidates all of them
LEAST = 5.0  # seconds of training between two checkpoints
SHARE = 20  # seconds of training for each second of writing: it costs at most 5 %
ABANDONED = 14 * 24 * 3600  # seconds after which a checkpoint is removed


class CheckpointHold:
    """Keeps final checkpoints until their MLflow run succeeds.

    A context manager around the run. If the run is killed or fails, an equal later run repeats
    none of its finished trainings.
    """

    def __init__(self) -> None:
        self._held: list[Checkpoint] = []

    def hold(self, checkpoint: Checkpoint) -> None:
        """Adds the checkpoint of a finished training."""
        self._held.append(checkpoint)

    def wants(self, score: float) -> bool:
        """Returns whether to keep the final state of a training with this validation AUROC."""
        return True

    def drop(self) -> None:
        """Removes the checkpoints."""
        for each in self._held:
            each.drop()
        self._held.clear()

    def __enter__(self) -> CheckpointHold:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.drop()


class BestCheckpoint(CheckpointHold):
    """Keeps the final checkpoint of the best training of a search, which its refit then loads.

    Attributes:
        best: best validation AUROC so far; only a training that beats it is kept.
    """

    def __init__(self) -> None:
        """Starts without a checkpoint."""
        super().__init__()
        self.best = -math.inf
        self._score = -math.inf

    def wants(self, score: float) -> bool:
        """Returns whether the score is the best so far."""
        if score <= self.best:
            return False
        self.best = self._score = score
        return True

    def hold(self, checkpoint: Checkpoint) -> None:
        """Keeps this checkpoint and drops the one before."""
        self._drop_others(checkpoint)
        super().hold(checkpoint)

    def release(self, best: float) -> None:
        """Leaves the checkpoint on disk if `best` is its score; drops it otherwise."""
        if self._score != best:
            self._drop_others()

    def _drop_others(self, *kept: Checkpoint) -> None:
        for each in self._held:
            if each not in kept:
                each.drop()
        self._held.clear()


class BestFolds:
    """Keeps the final checkpoints of the best cross-validated trial, which the refit loads."""

    def __init__(self) -> None:
        """Starts without a trial."""
        self._score = -math.inf
        self._hold: CheckpointHold | None = None

    def keep(self, hold: CheckpointHold, score: float, best: float) -> None:
        """Keeps the checkpoints of a trial if its score is above `best`; drops them otherwise.

        `best` is the best score of the study before it.
        """
        if score <= max(best, self._score):
            hold.drop()
            return
        if self._hold is not None:
            self._hold.drop()
        self._hold, self._score = hold, score

    def release(self, best: float) -> None:
        """Leaves the checkpoints on disk if `best` is their score; drops them otherwise."""
        if self._hold is not None and self._score != best:
            self._hold.drop()


class Checkpoint:
    """Checkpoint of one training.

    `key` covers everything that the training depends on, so that equal trainings share their
    checkpoint. `ends` holds the final checkpoint; with None it is removed at once.
    """

    def __init__(self, key: str, ends: CheckpointHold | None = None) -> None:
        # another release of PyTorch computes other bits
        self._key = content_key(FORMAT, torch.__version__, key)
        self._ends = ends
        self._written = time.monotonic()
        self._wait = LEAST
        self._refused = False

    def found(self) -> dict | None:
        """Loads the newest saved state to the CPU; None if there is none.

        A state whose checksum does not match is dropped, and an earlier one used.
        """
        _clear_abandoned()
        for folder in reversed(self._folders()):
            try:
                entry = json.loads((folder / "entry.json").read_text())
                if checksum(folder / "state.pt") != entry["checksum"]:
                    raise ValueError("checksum")
                return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
            except FileNotFoundError:
                continue  # an equal training has ended, and dropped it
            except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError):
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def keep(self, epoch: int, state: Callable[[], dict]) -> None:
        """Saves the state after an epoch if enough time has passed since the last checkpoint.

        If it cannot be written, prints one line and saves no more of this training.
        """
        began = time.monotonic()
        if began - self._written < self._wait:
            return
        self._keep(epoch, state)
        self._written = time.monotonic()
        self._wait = max(LEAST, SHARE * (self._written - began))

    def end(self, epoch: int, state: Callable[[], dict], score: float) -> None:
        """Saves the final state after `epoch` if `ends` wants it; else removes the checkpoint.

        `score` is the validation AUROC of the best epoch.
        """
        if self._ends is None or not self._ends.wants(score):
            self.drop()
        else:
            self._ends.hold(self)
            self._keep(epoch, state)

    def drop(self) -> None:
        """Removes the checkpoint."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, epoch: int, state: Callable[[], dict]) -> None:
        folder = kept_folder(KIND, f"{self._key}-{epoch:06d}")
        if self._refused or folder.is_dir():
            return
        try:
            _write(folder, state())
        except (MedtlError, OSError, RuntimeError) as error:
            # PyTorch reports a full disk as a RuntimeError
            self._refused = True
            reason = " ".join(str(error).split())[:200]
            print(f"note: no checkpoint of this training is kept: {reason}", file=sys.stderr)
            return
        for earlier in self._folders():
            if earlier.name < folder.name:
                shutil.rmtree(earlier, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Returns the saved states of this training, the earliest epoch first."""
        return sorted((cache_root() / KIND).glob(f"{self._key}-*"))


def _write(folder: Path, state: dict) -> None:
    with atomic_directory(folder) as unfinished:
        place = unfinished / "state.pt"
        with place.open("wb") as file:
            torch.save(state, file)
        (unfinished / "entry.json").write_text(json.dumps({"checksum": checksum(place)}))


def _clear_abandoned() -> None:
    """Removes checkpoints of abandoned trainings."""
    root = cache_root() / KIND
    for folder in root.iterdir() if root.is_dir() else ():
        if is_abandoned(folder, ABANDONED):
            shutil.rmtree(folder, ignore_errors=True)
