"""Checkpoints: where a training stands, kept so that one that was killed goes on from there.

A checkpoint is a folder with the tensors and numbers of a training after some epoch, and their
checksum. It is written whole or not at all, its key says all that the training's numbers depend on,
and reading it executes nothing. The clock decides how often one is written, and so how much is done
again after a kill; it never decides what comes out.
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

from medtl.errors import MedtlError
from medtl.keep import cache_root, checksum, is_abandoned, kept_folder, key_of, written_whole

KIND = "checkpoints"
FORMAT = 1  # of what is kept; a new number begins every training anew
LEAST = 5.0  # seconds of training between two checkpoints: what is shorter is soon done again
SHARE = 20  # times as long as writing took is trained before the next: it costs at most 5 %
ABANDONED = 14 * 24 * 3600  # seconds after which nobody will go on with a training


class Checkpoint:
    """The checkpoint of one training; `key` is of all that its numbers depend on.

    Equal trainings share one: what either wrote, the other would have written.
    """

    def __init__(self, key: str) -> None:
        # another release of PyTorch computes other bits
        self._key = key_of(FORMAT, torch.__version__, key)
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
        if self._refused or began - self._written < self._wait:
            return
        folder = kept_folder(KIND, f"{self._key}-{epoch:06d}")
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
        self._written = time.monotonic()
        self._wait = max(LEAST, SHARE * (self._written - began))

    def drop(self) -> None:
        """Removes what was kept: the training has ended."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """What is kept of this training, the earliest epoch first."""
        return sorted((cache_root() / KIND).glob(f"{self._key}-*"))


def _write(folder: Path, state: dict) -> None:
    with written_whole(folder) as unfinished:
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
