"""Owner process of a run, and detection of orphaned runs.

MLflow does not know when a process was killed: its run stands RUNNING for ever. So each run says in
a tag whose it is, and whoever wants to close one looks first whether that process still lives.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import psutil
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

OWNER_TAG = "medtl.process"  # on a run: host, process number, and when the process began
PARENT_TAG = "mlflow.parentRunId"
SILENT = 3600.0
"""Seconds without a sign after which a run of another host is nobody's. A run logs what the machine
does every few seconds, and each run nested in it is vouched for by that."""

_SAME_START = 0.02  # seconds that two looks at a process's start may differ by


def owner(number: int | None = None) -> str:
    """A process of this host, or this one, as the tag `medtl.process` names it."""
    process = psutil.Process(number)
    return f"{_host()} {process.pid} {_began(process):.2f}"


def is_orphaned(run: Run) -> bool:
    """Whether a run that stands RUNNING is worked in by no process any more.

    On this host the process itself is looked for. Of another host nothing can be seen but what the
    run and its parent log: only when nothing has come from either for an hour, it counts as cut
    off. So does a run without the tag, that began elsewhere or in an older version.
    """
    if run.info.status != "RUNNING":
        return False
    host, _, process = run.data.tags.get(OWNER_TAG, "").partition(" ")
    if host == _host():
        number, _, started = process.partition(" ")
        return not _lives(int(number), float(started))
    return time.time() - _last_sign(run) > SILENT


def _host() -> str:
    """The name of this host, and in a container the number of its process table."""
    table = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{table.stat().st_ino if table.exists() else 0}"


def _lives(number: int, started: float) -> bool:
    try:
        process = psutil.Process(number)
        same = abs(_began(process) - started) <= _SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _began(process: psutil.Process) -> float:
    """When a process began: seconds since the machine did, which no clock that is set moves.

    Where the system does not show that, seconds since 1970.
    """
    try:
        shown = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return process.create_time()
    # after the program's name, which may hold anything
    return int(shown.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _last_sign(run: Run) -> float:
    """When the run, or one above it, last logged a number: seconds since 1970."""
    # MLflow's public `metrics` has the values alone, without their times
    times = [metric.timestamp for metric in run.data._metric_objs]
    sign = max([run.info.start_time, *times]) / 1000
    parent = run.data.tags.get(PARENT_TAG)
    if parent is None:
        return sign
    try:
        return max(sign, _last_sign(MlflowClient().get_run(parent)))
    except MlflowException:  # the parent was deleted
        return sign
