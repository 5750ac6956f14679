"""The one progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str, unit: str = "image") -> Iterator[T]:
    """Passes `items` on while a bar on stderr tells what is done, how far it is, and how fast.

    Without a terminal (a log file, CI) it prints a line at most every ten seconds. Of the processes
    that torchrun starts only the first has a bar.
    """
    if os.environ.get("RANK", "0") != "0":
        yield from items
        return
    interval = 0.2 if sys.stderr.isatty() else 10.0
    yield from tqdm(items, total=total, desc=what, unit=unit, mininterval=interval, leave=False)
