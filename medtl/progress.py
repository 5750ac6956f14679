"""Progress bar, durations in words, and the time of a command's phases."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str, unit: str = "image") -> Iterator[T]:
    """Yields `items` under a progress bar on stderr.

    Without a terminal (a log file, CI) it prints at most one line every ten seconds. Of the
    processes that torchrun starts, only the first has a bar.
    """
    if os.environ.get("RANK", "0") != "0":
        yield from items
        return
    yield from tqdm(
        items, total=total, desc=what, unit=unit, mininterval=bar_interval(), leave=False
    )


def bar_interval() -> float:
    """Returns the seconds between two updates of a progress bar."""
    return 0.2 if sys.stderr.isatty() else 10.0


def in_words(seconds: float) -> str:
    """Returns a duration for a reader.

    >>> [in_words(seconds) for seconds in (0.4, 42, 95, 600, 5400)]
    ['1 s', '42 s', '1 min 35 s', '10 min', '1 h 30 min']
    """
    whole = max(1, round(seconds))
    if whole >= 300:
        whole = 60 * round(whole / 60)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


class PhaseTimer:
    """Measures the phases of a command by the wall clock."""

    def __init__(self) -> None:
        """Starts the first phase."""
        self._started = self._last = time.monotonic()
        self._seconds: dict[str, float] = {}

    def end(self, phase: str) -> None:
        """Ends a phase, and starts the next one."""
        now = time.monotonic()
        self._seconds[phase] = self._seconds.get(phase, 0.0) + now - self._last
        self._last = now

    def summary(self) -> str:
        """Returns the total time and that of each phase."""
        parts = [f"{phase} {in_words(seconds)}" for phase, seconds in self._seconds.items()]
        return f"{in_words(self._last - self._started)}: {', '.join(parts)}"
