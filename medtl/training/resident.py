"""Arrays on the device: copied to a GPU without waiting, and kept there whole where they fit."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

SHARE = 0.4
"""Largest share of a GPU's memory that kept arrays occupy together. Ours: training needs the rest.
"""
BLOCK = 256 << 20  # bytes copied to a GPU at a time


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Returns an array as a tensor on the device.

    The copy to a GPU is from pinned memory: it does not wait for the operations queued before it.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


class Rows:
    """Rows of an array, by index, on a device.

    A GPU gets the whole array at its first use if it fits there, and gathers the rows itself.
    Otherwise, and on the CPU, the rows of each batch are read anew.
    """

    def __init__(self, read: Callable[[np.ndarray], np.ndarray], count: int) -> None:
        """Describes the array.

        Args:
            read: returns the rows of given indices: [B, ...].
            count: number of rows.
        """
        self._read = read
        self._count = count
        self._whole: Tensor | None = None

    def on(self, device: torch.device, rows: np.ndarray) -> Tensor:
        """Returns rows [B, ...] on the device; uint16 as int32, for torch has no uint16 arithmetic.

        Args:
            device: CPU or GPU.
            rows: indices, int64 [B].
        """
        if device.type == "cuda" and len(rows) and self._fits(device):
            assert self._whole is not None
            return self._whole.index_select(0, to_device(rows, device))
        return to_device(_with_arithmetic(self._read(rows)), device)

    def drop(self) -> None:
        """Frees the memory of the array on the GPU."""
        self._whole = None

    def _fits(self, device: torch.device) -> bool:
        """Returns whether the whole array is on the GPU, after copying it there if it fits."""
        if self._whole is None or self._whole.device != device:
            if self in _TOO_LARGE:
                return False
            first = _with_arithmetic(self._read(np.arange(1)))
            if not _make_room(first.nbytes * self._count, device):
                _TOO_LARGE[self] = True
                return False
            self._whole = self._copied(first, device)
        _HELD.pop(self, None)
        _HELD[self] = self._whole.nbytes  # the last used one is last
        return True

    def _copied(self, first: np.ndarray, device: torch.device) -> Tensor:
        whole = to_device(first, device).new_empty((self._count, *first.shape[1:]))
        block = max(1, BLOCK // first.nbytes)
        for start in range(0, self._count, block):
            rows = np.arange(start, min(start + block, self._count))
            whole[start : start + block] = to_device(_with_arithmetic(self._read(rows)), device)
        return whole


_HELD: WeakKeyDictionary[Rows, int] = WeakKeyDictionary()
"""Bytes of the arrays on the GPU, the least recently used first."""
_TOO_LARGE: WeakKeyDictionary[Rows, bool] = WeakKeyDictionary()
"""Arrays that did not fit: not asked again, so that a training stays in one mode."""


def _make_room(needed: int, device: torch.device) -> bool:
    """Drops the least recently used arrays until `needed` bytes fit; False if they never can."""
    _, total = torch.cuda.mem_get_info(device)
    budget = SHARE * total
    if needed > budget:
        return False
    for rows in list(_HELD):
        if needed + sum(_HELD.values()) <= budget:
            break
        rows.drop()
        del _HELD[rows]
    free, _ = torch.cuda.mem_get_info(device)
    # PyTorch gives back freed blocks that it holds where it needs the memory
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return needed <= free + held


def _with_arithmetic(array: np.ndarray) -> np.ndarray:
    """Converts uint16 to int32, and makes other arrays contiguous."""
    if array.dtype == np.uint16:
        return array.astype(np.int32)
    return np.ascontiguousarray(array)
