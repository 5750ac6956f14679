from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from medtl.tracking.run_ownership import OWNER_TAG, PARENT_TAG, SILENT, is_orphaned, owner


def run_of(process: str | None, parent: str | None = None, began: float | None = None) -> Run:
    """A run that stands RUNNING, begun at a time in seconds."""
    tags = {} if process is None else {OWNER_TAG: process}
    if parent is not None:
        tags[PARENT_TAG] = parent
    started = int(1000 * (began or time.time()))
    return MlflowClient().create_run("0", start_time=started, tags=tags)


def logged(run: Run, at: float) -> None:
    MlflowClient().log_metric(run.info.run_id, "system/cpu", 1.0, timestamp=int(1000 * at))


def again(run: Run) -> Run:
    return mlflow.get_run(run.info.run_id)


@pytest.fixture
def other():
    """A process that lives, and the tag of its runs."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process, owner(process.pid)
        process.kill()


def test_a_run_is_cut_off_when_its_process_was_killed(other):
    process, tag = other
    run = run_of(tag)
    assert not is_orphaned(run)
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert is_orphaned(run), "also while nobody has asked how it ended"
    process.wait()
    assert is_orphaned(run)
    assert not is_orphaned(run_of(owner())), "this process lives"


def test_a_process_of_the_same_number_is_another(other):
    _, tag = other
    host, number, started = tag.split()
    assert is_orphaned(run_of(f"{host} {number} {float(started) - 60:.2f}"))


def test_of_another_host_only_silence_tells(other):
    elsewhere, long_ago = "ward-7/1 12 1000.00", time.time() - SILENT - 60
    assert not is_orphaned(run_of(elsewhere))
    run = run_of(elsewhere, began=long_ago)
    assert is_orphaned(run)
    logged(run, time.time() - 60)
    assert not is_orphaned(again(run))
    nested = run_of(elsewhere, parent=run.info.run_id, began=long_ago)
    assert not is_orphaned(nested), "the run above it gives signs for both"
    assert is_orphaned(run_of(None, began=long_ago)), "of an older version"


def test_a_run_that_ended_was_not_cut_off():
    run = run_of("ward-7/1 12 1000.00", began=1.0)
    MlflowClient().set_terminated(run.info.run_id, "FAILED")
    assert not is_orphaned(again(run))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="where Linux says it")
def test_when_a_process_began_does_not_hang_on_the_clock_that_is_set(other):
    began = float(other[1].split()[2])
    assert 0 <= time.clock_gettime(time.CLOCK_BOOTTIME) - began < 60, "since the machine began"
