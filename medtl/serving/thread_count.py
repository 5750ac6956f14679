"""Number of threads for a forward pass, by measurement.

An operation on one small image can take less time than waking a thread, and a container may have
fewer processors than PyTorch has threads: fewer threads may then be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

RUNS = 5  # of each number of threads, at most; the fastest counts
ENOUGH = 0.3  # seconds of runs after which a number of threads is tried no further


@contextmanager
def compute_threads(count: int) -> Iterator[None]:
    """Lets PyTorch compute with `count` threads for this thread; restores the number before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fastest_thread_count(run: Callable[[], object]) -> int:
    """Returns the number of threads, a power of two or all, with which `run` takes the least time.

    Numbers are tried in ascending order, until one is slower than the one before.
    """
    most = torch.get_num_threads()
    best, least = most, float("inf")
    for count in sorted({most, *(2**power for power in range(most.bit_length()))}):
        with compute_threads(count):
            seconds = _least_seconds(run)
        if seconds >= least:
            break
        best, least = count, seconds
    return best


def _least_seconds(run: Callable[[], object]) -> float:
    least, spent = float("inf"), 0.0
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        seconds = time.perf_counter() - began
        least, spent = min(least, seconds), spent + seconds
        if spent > ENOUGH:
            break
    return least
