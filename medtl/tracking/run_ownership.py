"""Owner process of a run, and detection of orphaned runs.

MLflow does not notice that a process was killed: its run stays RUNNING. So each run has a tag with
its process, and is closed by another process only if that one is dead.
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

from medtl.tracking.hidden_tags import hidden_tag

OWNER_TAG = (
    "mlflow.medtl.process"  # hidden, on a run: host, process number, and when the process began
)
PARENT_TAG = "mlflow.parentRunId"
SILENT = 3600.0
"""Seconds without a logged metric after which a run of another host is orphaned. A run logs system
metrics every few seconds, which also count for the runs nested in it."""

_SAME_START = 0.02  # seconds by which two readings of a process's start may differ


def owner(number: int | None = None) -> str:
    """Formats a process of this host (default: this one) as the tag `OWNER_TAG`."""
    process = psutil.Process(number)
    return f"{_host()} {process.pid} {_began(process):.2f}"


def owner_of(run: Run) -> str:
    """Returns the process of a run as `owner` formats it, '' if unknown."""
    return hidden_tag(run.data.tags, OWNER_TAG) or ""


def is_orphaned(run: Run) -> bool:
    """Returns whether a run is RUNNING without a process.

    On this host the process itself is looked up. A run of another host is orphaned if neither it
    nor its parent has logged a metric for an hour; so is a run without the tag, which began
    elsewhere or in an older version.
    """
    if run.info.status != "RUNNING":
        return False
    host, _, process = owner_of(run).partition(" ")
    if host == _host():
        number, _, started = process.partition(" ")
        return not _lives(int(number), float(started))
    return time.time() - _last_sign(run) > SILENT


def _host() -> str:
    """Returns the name of this host, and the number of its process table (of a container)."""
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
    """Returns the start of a process in seconds since boot, independent of clock changes.

    Seconds since 1970 on systems without /proc.
    """
    try:
        shown = Path(f"/proc/{process.pid}/stat").read_text()
    except FileNotFoundError:
        return process.create_time()
    # after the program's name, which may contain anything
    return int(shown.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def _last_sign(run: Run) -> float:
    """Returns when the run, or one above it, last logged a metric: seconds since 1970."""
    # MLflow's public `metrics` has values without times
    times = [metric.timestamp for metric in run.data._metric_objs]
    sign = max([run.info.start_time, *times]) / 1000
    parent = run.data.tags.get(PARENT_TAG)
    if parent is None:
        return sign
    try:
        return max(sign, _last_sign(MlflowClient().get_run(parent)))
    except MlflowException:  # the parent was deleted
        return sign
