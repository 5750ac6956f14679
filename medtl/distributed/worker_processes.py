"""Worker processes on this machine: started, watched, and replaced when they die.

This module is the first that such a process imports. It must import nothing that counts processor
cores (torch) before `_enter` has set the environment.
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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from medtl.errors import MedtlError, masked

LOOK = 1.0  # seconds between two calls of `on_look`
MOST_SUCCESSORS = 3  # of one worker, one after the other
LAST_WORDS = 10.0  # seconds for a process to end after SIGTERM, before it is killed

T = TypeVar("T")


@dataclass(frozen=True)
class _Begun(Generic[T]):
    process: BaseProcess
    task: T
    successors: int  # number of processes before this one in its place


def run_processes(
    work: Callable[[T], None],
    new_task: Callable[[], T],
    environments: Sequence[Mapping[str, str]],
    is_left: Callable[[], bool],
    on_death: Callable[[T], None],
    on_stop: Callable[[T], None],
    on_look: Callable[[], None],
) -> None:
    """Runs `work` in one process for each environment, each with its own task, until all end.

    A process that dies while work is left gets a successor. The processes are stopped with this
    one, and end by themselves if it is killed.

    Args:
        work: function of a module that a process runs.
        new_task: makes its argument, of plain values.
        environments: environment variables of each process, beside those of this one.
        is_left: returns whether work is left.
        on_death: called with the task of a process that died.
        on_stop: called with the task of a process that was stopped.
        on_look: called every second.

    Raises:
        MedtlError: work is left, and the last successor in every place has died.
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
            "all workers have died; their errors are printed above; the same command goes on"
        )


def _stop(begun: Collection[_Begun[T]], on_stop: Callable[[T], None]) -> None:
    for each in begun:
        each.process.terminate()
    for each in begun:
        each.process.join(LAST_WORDS)
        if each.process.is_alive():
            each.process.kill()
            each.process.join()
        # what stopped this process may also prevent the clean-up; later commands repeat it
        with contextlib.suppress(Exception):
            on_stop(each.task)


def _enter(payload: bytes, environment: dict[str, str]) -> None:
    """Runs the work of a new process; prints an error as one line on stderr."""
    os.environ.update(environment)
    # Ctrl-C reaches all processes of a terminal; the parent ends this one
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
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
