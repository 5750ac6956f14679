"""A thread for each training on the CPU, so that a lack of memory ends with that training.

oneDNN generates code for each new shape. When an allocation fails there, its assembler (Xbyak)
keeps the error for the rest of the thread, and every later primitive of that thread fails with
"could not create a primitive", however much memory is free by then. A new thread begins without it.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")


def run_in_own_thread(
    function: Callable[[Callable[[Value], None]], Result], callback: Callable[[Value], None]
) -> Result:
    """Returns `function(callback)`, computed in a new thread; `callback` runs in this one.

    The active MLflow run belongs to the calling thread, so what logs to it runs there. Ctrl-C
    there also ends the other thread, which is waited for. If the system starts no thread, for want
    of memory, `function` runs in this one.

    >>> run_in_own_thread(lambda report: [report(epoch) for epoch in (1, 2)], print)
    1
    2
    [None, None]

    Raises:
        BaseException: as raised by `function` or by `callback`.
    """
    values: queue.SimpleQueue[Value | _Ended] = queue.SimpleQueue()
    answers: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    results: list[Result] = []
    errors: list[BaseException] = []

    def report(value: Value) -> None:
        values.put(value)
        error = answers.get()
        if error is not None:
            raise error

    def run() -> None:
        try:
            results.append(function(report))
        except BaseException as error:
            errors.append(error)
        finally:
            values.put(_ENDED)

    thread = threading.Thread(target=run, name="training", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return function(callback)
    try:
        while not isinstance(value := values.get(), _Ended):
            answers.put(_error_of(callback, value))
    except BaseException as error:  # Ctrl-C between two callbacks
        answers.put(error)
        _raise_in(thread, type(error))
        raise
    finally:
        thread.join()
    try:
        if errors:
            raise errors[0]
        return results[0]
    finally:
        errors.clear()  # a reference to its traceback would keep the training's tensors in memory


class _Ended:
    """Marks the end of the values."""


_ENDED = _Ended()


def _error_of(callback: Callable[[Value], None], value: Value) -> BaseException | None:
    try:
        callback(value)
    except BaseException as error:
        return error
    return None


def _raise_in(thread: threading.Thread, kind: type[BaseException]) -> None:
    """Raises an exception in a thread before its next Python instruction."""
    identity = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(kind))
