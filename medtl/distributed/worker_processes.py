"""Worker processes on this machine: started, watched, and replaced when they die.

This module is the first that such a process imports. It must import nothing that counts the
processor's cores, before `_enter` has said how many there are for it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from medtl.errors import MedtlError, masked

LOOK = 1.0  # seconds between two looks at what was done
MOST_SUCCESSORS = 3  # that take one place, one after the other
LAST_WORDS = 10.0  # seconds that a process has to end in when it is told to

T = TypeVar("T")


@dataclass(frozen=True)
class _Begun(Generic[T]):
    process: BaseProcess
    task: T
    successors: int  # how many processes had this place before


def run_processes(
    work: Callable[[T], None],
    new_task: Callable[[], T],
    environments: Sequence[Mapping[str, str]],
    is_left: Callable[[], bool],
    on_death: Callable[[T], None],
    on_stop: Callable[[T], None],
    on_look: Callable[[], None],
) -> None:
    """Runs `work` on a task of its own in one process for each environment, until all have ended.

    A process that dies while work is left gets a successor. When this process is stopped, they are
    stopped; when it is killed, they end by themselves.

    Args:
        work: what a process does; a function of a module.
        new_task: what it is given; plain values.
        environments: the environment variables that each process has beside those of this one.
        is_left: whether there is work left.
        on_death: hears of the task of a process that died.
        on_stop: hears of the task of a process that was stopped.
        on_look: called every second.

    Raises:
        MedtlError: work is left, and in every place the last successor has died.
    """
    context = multiprocessing.get_context("spawn")
    running: dict[int, _Begun[T]] = {}

    def begin(place: int, successors: int) -> None:
        task = new_task()
        payload = pickle.dumps((work, task))
        process = context.Process(target=_enter, args=(payload, dict(environments[place])))
        process.start()
        running[place] = _Begun(process, task, successors)

    try:
        for place in range(len(environments)):
            begin(place, 0)
        while running:
            wait([begun.process.sentinel for begun in running.values()], LOOK)
            on_look()
            for place, begun in list(running.items()):
                if begun.process.is_alive():
                    continue
                del running[place]
                if begun.process.exitcode == 0:
                    continue
                on_death(begun.task)
                if is_left() and begun.successors < MOST_SUCCESSORS:
                    begin(place, begun.successors + 1)
    finally:
        _stop(running.values(), on_stop)
    if is_left():
        raise MedtlError(
            "all workers have died; what each said last stands above; the same command goes on"
        )


def _stop(begun: Sequence[_Begun[T]], on_stop: Callable[[T], None]) -> None:
    for each in begun:
        each.process.terminate()
    for each in begun:
        each.process.join(LAST_WORDS)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()
        # what stopped this process may also keep it from clearing up: others will
        with contextlib.suppress(Exception):
            on_stop(each.task)


def _enter(payload: bytes, environment: dict[str, str]) -> None:
    """What a new process does first; a failure is one line on stderr, as everywhere."""
    os.environ.update(environment)
    # Ctrl-C goes to all processes of a terminal: the one that began this one ends it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work, task = pickle.loads(payload)
        work(task)
    except Exception as error:
        if os.environ.get("MEDTL_DEBUG") == "1":
            print(masked(traceback.format_exc()), file=sys.stderr)
        kind = "" if isinstance(error, MedtlError) else f"{type(error).__name__}: "
        print(f"medtl: a worker ended: {kind}{masked(' '.join(str(error).split()))}",
              file=sys.stderr)  # fmt: skip
        sys.exit(1)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
