"""Trainings run in a thread of their own; what they report is handled in the calling thread."""

import gc
import signal
import threading
import time
import weakref

import pytest
import torch

from medtl.training.training_thread import run_in_own_thread


def test_the_function_runs_elsewhere_and_the_callback_here():
    threads = []

    def function(report):
        threads.append(threading.current_thread())
        report(1)
        return 2

    def callback(value):
        threads.append((threading.current_thread(), value))

    assert run_in_own_thread(function, callback) == 2
    there, here = threads
    assert there is not threading.current_thread()
    assert here == (threading.current_thread(), 1)


def test_without_a_new_thread_the_function_runs_here(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    values = []
    assert run_in_own_thread(lambda report: report(1), values.append) is None
    assert values == [1]


def test_an_error_of_the_callback_is_raised_in_the_function():
    seen = []

    def function(report):
        try:
            report(1)
        except ValueError as error:
            seen.append(error)
            raise

    def callback(value):
        raise ValueError(value)

    with pytest.raises(ValueError, match="1") as raised:
        run_in_own_thread(function, callback)
    assert seen == [raised.value]


def test_ctrl_c_ends_the_other_thread_before_it_is_raised_here():
    ended = []

    def function(report):
        report(1)
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.append(threading.current_thread())

    def callback(value):
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_own_thread(function, callback)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(ended) == 1
    assert not ended[0].is_alive()


def test_a_failed_training_keeps_no_tensor_in_memory():
    kept = []

    def function(report):
        tensor = torch.zeros(3)
        kept.append(weakref.ref(tensor))
        raise ValueError("failed")

    gc.disable()
    try:
        with pytest.raises(ValueError, match="failed"):
            run_in_own_thread(function, lambda value: None)
        assert kept[0]() is None
    finally:
        gc.enable()
