"""Checkpoints: where a training stands, kept so that one that was killed goes on from there.

A checkpoint is a folder with the tensors and numbers of a training after some epoch, and their
checksum. It is written whole or not at all, its key says all that the training's numbers depend on,
and reading it executes nothing. The clock decides how often one is written, and so how much is done
again after a kill; it never decides what comes out. When the training has ended its end is kept
where the run that it belongs to has more to do.
"""

from __future__ import annotations

import json
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
FORMAT = 3  # of what is kept; a new number begins every training anew
LEAST = 5.0  # seconds of training between two checkpoints: what is shorter is soon done again
SHARE = 20  # times as long as writing took is trained before the next: it costs at most 5 %
ABANDONED = 14 * 24 * 3600  # seconds after which nobody will go on with a training


class CheckpointHold:
    """Trainings that have ended in a run that has not: kept until the run has ended well.

    A context around the run. When the run is killed or fails, an equal one that comes after it
    trains none of them again.
    """

    def __init__(self) -> None:
        self._held: list[Checkpoint] = []

    def hold(self, checkpoint: Checkpoint) -> None:
        """A training that has ended here, with its end kept."""
        self._held.append(checkpoint)

    def __enter__(self) -> CheckpointHold:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for each in self._held:
                each.drop()


class Checkpoint:
    """The checkpoint of one training; `key` is of all that its numbers depend on.

    Equal trainings share one: what either wrote, the other would have written. `ends` holds the
    last one when the training has ended, None where nothing comes after it.
    """

    def __init__(self, key: str, ends: CheckpointHold | None = None) -> None:
        # another release of PyTorch computes other bits
        self._key = content_key(FORMAT, torch.__version__, key)
        self._ends = ends
        self._written = time.monotonic()
        self._wait = LEAST
        self._refused = False

    def found(self) -> dict | None:
        """The state after the last epoch that was kept, on the CPU; None where there is none.

        A state whose bytes changed is dropped, and an earlier one, or none, taken for it.
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
        """Keeps the state after an epoch, where enough time has passed since the last.

        A disk that refuses it is said once, and the training goes on without.
        """
        began = time.monotonic()
        if began - self._written < self._wait:
            return
        self._keep(epoch, state)
        self._written = time.monotonic()
        self._wait = max(LEAST, SHARE * (self._written - began))

    def end(self, epoch: int, state: Callable[[], dict]) -> None:
        """The training has ended after `epoch`: keeps its state where it is held, else nothing."""
        if self._ends is None:
            self.drop()
        else:
            self._ends.hold(self)
            self._keep(epoch, state)

    def drop(self) -> None:
        """Removes what was kept."""
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
        """What is kept of this training, the earliest epoch first."""
        return sorted((cache_root() / KIND).glob(f"{self._key}-*"))


def _write(folder: Path, state: dict) -> None:
    with atomic_directory(folder) as unfinished:
        place = unfinished / "state.pt"
        with place.open("wb") as file:
            torch.save(state, file)
        (unfinished / "entry.json").write_text(json.dumps({"checksum": checksum(place)}))


def _clear_abandoned() -> None:
    """Drops the checkpoints of trainings that were given up."""
    root = cache_root() / KIND
    for folder in root.iterdir() if root.is_dir() else ():
        if is_abandoned(folder, ABANDONED):
            shutil.rmtree(folder, ignore_errors=True)
