"""Store of activations on disk: 16 bits, memory-mapped, bounded.

An entry is a folder with one `.npy` file for each tensor at the cut, images on the first axis, and
`entry.json` with their checksums. It is written atomically, its key covers everything that its
contents depend on, and the least recently used entries are dropped when the budget is reached.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from medtl.cache import ABANDONED, atomic_directory, cache_root, is_abandoned, kept_folder
from medtl.training.resident import Rows

KIND = "activations"


@dataclass(frozen=True)
class Kept:
    """Tensors at a cut, for N images.

    `arrays` are [N, ...]; those of four dimensions are stored channels last ([N, H, W, C]).
    """

    arrays: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batch(self, rows: np.ndarray, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Returns the tensors of these rows as float32, channels first."""
        return tuple(
            _channels_first(each.on(torch.device(device), rows).float()) for each in self._rows
        )

    @cached_property
    def _rows(self) -> tuple[Rows, ...]:
        return tuple(Rows(array.__getitem__, len(array)) for array in self.arrays)


class OutOfRangeError(ArithmeticError):
    """An activation is too large for 16 bits."""


def budget_bytes() -> int:
    """Returns the limit in bytes: `MEDTL_CACHE_GB`, else 20 GB or a quarter of the free disk."""
    named = os.environ.get("MEDTL_CACHE_GB")
    if named:
        return int(float(named) * 1e9)
    root = cache_root()
    while not root.exists():
        root = root.parent
    return min(20_000_000_000, shutil.disk_usage(root).free // 4)


def find(key: str) -> Kept | None:
    """Returns the entry of a key, None if missing; drops one whose checksum does not match."""
    folder = kept_folder(KIND, key)
    try:
        entry = json.loads((folder / "entry.json").read_text())
        paths = [folder / f"{index}.npy" for index in range(len(entry["checksums"]))]
        if [_checksum(path) for path in paths] != entry["checksums"]:
            raise ValueError("checksum")
        arrays = tuple(np.load(path, mmap_mode="r") for path in paths)
        # the time of last use, by which the oldest entries go first
        os.utime(folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return Kept(arrays)


@contextmanager
def writing(key: str, count: int) -> Iterator[Callable[[tuple[Tensor, ...]], None]]:
    """Stores the batches given to the yielded function, together `count` images, under `key`.

    The entry exists once the block has ended; if the block fails, nothing is left behind.

    Raises:
        CannotKeepError: the disk is full or cannot be written.
        OutOfRangeError: a value does not fit into 16 bits.
    """
    with atomic_directory(kept_folder(KIND, key)) as unfinished, ExitStack() as files:
        writer = _Writer(unfinished, count, files)
        yield writer.write
        writer.finish()
        files.close()
        (unfinished / "entry.json").write_text(json.dumps({"checksums": writer.checksums}))


def room(budget: int) -> int:
    """Returns the bytes of the budget that are free."""
    return budget - sum(map(_size, _entries()))


def make_room(needed: int, budget: int) -> bool:
    """Drops the least recently used entries until `needed` bytes fit; False if they never can."""
    if needed > budget:
        return False
    used = {folder: _size(folder) for folder in _entries()}
    oldest_first = sorted(used, key=_last_used)
    total = sum(used.values())
    for folder in oldest_first:
        if total + needed <= budget:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= used[folder]
    return True


class _Writer:
    """Writes an entry with plain writes: with a memory map a full disk would crash the process."""

    def __init__(self, folder: Path, count: int, open_files: ExitStack) -> None:
        self.checksums: list[int] = []
        self._folder = folder
        self._count = count
        self._open_files = open_files
        self._files: list[BinaryIO] = []
        self._queued: _Queued | None = None

    def write(self, batch: tuple[Tensor, ...]) -> None:
        """Queues the copy of a batch from its device, and writes the batch before it."""
        before, self._queued = self._queued, _Queued(batch)
        if before is not None:
            self._write(before.arrays())

    def finish(self) -> None:
        """Writes the last batch."""
        if self._queued is not None:
            self._write(self._queued.arrays())

    def _write(self, arrays: list[np.ndarray]) -> None:
        if not self._files:
            self._files = [self._begun(index, array) for index, array in enumerate(arrays)]
            self.checksums = [0] * len(arrays)
        for index, (file, array) in enumerate(zip(self._files, arrays, strict=True)):
            if not np.isfinite(array).all():
                raise OutOfRangeError(f"tensor {index} exceeds the range of 16 bits")
            data = array.tobytes()
            self.checksums[index] = zlib.crc32(data, self.checksums[index])
            file.write(data)

    def _begun(self, index: int, array: np.ndarray) -> BinaryIO:
        file = self._open_files.enter_context((self._folder / f"{index}.npy").open("wb"))
        shape = (self._count, *array.shape[1:])
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file


class _Queued:
    """Batch on its way from the device to memory, in 16 bits; a GPU computes on meanwhile."""

    def __init__(self, batch: tuple[Tensor, ...]) -> None:
        self._tensors = [_channels_last(tensor.detach().half()) for tensor in batch]
        self._copied: torch.cuda.Event | None = None
        if batch[0].device.type == "cuda":
            self._tensors = [_pinned_copy(tensor) for tensor in self._tensors]
            self._copied = torch.cuda.Event()
            self._copied.record()

    def arrays(self) -> list[np.ndarray]:
        """Returns the tensors as arrays, after the end of the copy."""
        if self._copied is not None:
            self._copied.synchronize()
        return [tensor.numpy() for tensor in self._tensors]


def _pinned_copy(tensor: Tensor) -> Tensor:
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return copy.copy_(tensor, non_blocking=True)


def _channels_last(tensor: Tensor) -> Tensor:
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).contiguous()


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def _checksum(path: Path) -> int:
    """Computes the CRC-32 of the data of an array file, without its header."""
    value = 0
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _entries() -> list[Path]:
    """Returns all entries; of unfinished ones, only those left behind by a killed process."""
    root = cache_root() / KIND
    if not root.is_dir():
        return []
    return [
        path
        for path in root.iterdir()
        if path.is_dir() and (not path.name.startswith(".") or is_abandoned(path, ABANDONED))
    ]


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except FileNotFoundError:
        return 0


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
