"""Image decoding in child processes with limits on time and memory.

The cost of a file is unknown before decoding for most formats, and native code cannot be
interrupted within a process. The number of processes is small, so the time limit of a file is
shorter while others wait; waiting files are served in order of arrival.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import psutil

import medtl
from medtl.imaging import bounded_decoding_worker
from medtl.imaging.bounded_decoding_worker import NUMPY
from medtl.imaging.decoder_process import DecoderProcess
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.rendering import Rendering

PROCESSES = 4
MEMORY = 5 * 2**29  # bytes that a decoder may allocate beyond its baseline
SECONDS = 10  # CPU time per file; 100 megapixels take about five
SECONDS_BESIDE = 2  # CPU time per file while others wait
PATIENCE = 50  # seconds of wall-clock time per file: a server has 60 for a request
STUCK = 10  # seconds without CPU use after which a decoder is killed
_LOOK = 0.1  # seconds between two checks of the limits
_ALONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # stacks of threads count as memory


class SlowImage(UnreadableImage):
    """Image whose decoder exceeded its time limit."""


class BoundedDecoders:
    """Pool of decoder processes; one spare is started ahead, and all exit with this process.

    Args:
        most: limit of processes.
        memory: bytes that each may allocate for decoding.
        seconds_beside: CPU time of a file while others wait.
    """

    def __init__(
        self,
        most: int = PROCESSES,
        memory: int = MEMORY,
        seconds_beside: float = SECONDS_BESIDE,
    ) -> None:
        self._most, self._memory, self._beside = most, memory, seconds_beside
        self._idle: deque[_Decoder] = deque()
        self._count = 0  # busy ones included
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    def start(self) -> None:
        """Starts two processes ahead of the first files."""
        self._give_back(self._taken())

    def square(self, data: bytes, shape: int | Rendering) -> np.ndarray:
        """Renders an image file, by default as a square of a side in pixels: [C, S, S].

        Raises:
            UnreadableImage: as in `decode`; or the decoder crashed, or exceeded its memory limit.
            SlowImage: the decoder exceeded its time limit.
        """
        decoder = self._taken()
        try:
            answer = decoder.ask(data, Rendering.of(shape), self._beside, lambda: bool(self._line))
        except BaseException:
            decoder.end()
            with self._changed:
                self._count -= 1
                self._changed.notify_all()
            raise
        self._give_back(decoder)
        if not answer.startswith(NUMPY):
            raise UnreadableImage(answer.decode())
        return np.load(io.BytesIO(answer), allow_pickle=False)

    def end(self) -> None:
        """Ends all idle processes; the next file starts one again."""
        with self._changed:
            while self._idle:
                self._idle.pop().end()
                self._count -= 1
            self._changed.notify_all()

    def _taken(self) -> _Decoder:
        mine = object()
        with self._changed:
            self._line.append(mine)
            try:
                self._changed.wait_for(lambda: self._line[0] is mine and self._free())
                taken = self._idle.popleft() if self._idle else self._begun()
                # starting takes a moment, so a spare is started before it is needed
                if not self._idle and self._count < self._most:
                    with contextlib.suppress(UnreadableImage):
                        self._idle.append(self._begun())
                return taken
            finally:
                self._line.remove(mine)
                self._changed.notify_all()

    def _begun(self) -> _Decoder:
        try:
            decoder = _Decoder(self._memory)
        except OSError as error:
            raise UnreadableImage(f"no process can be started to decode it ({error})") from error
        self._count += 1
        return decoder

    def _free(self) -> bool:
        return bool(self._idle) or self._count < self._most

    def _give_back(self, decoder: _Decoder) -> None:
        with self._changed:
            self._idle.appendleft(decoder)
            self._changed.notify_all()


class _Decoder(DecoderProcess):
    def __init__(self, memory: int) -> None:
        arguments = [
            bounded_decoding_worker.__file__,
            Path(medtl.__file__).parent.parent,
            memory,
            PATIENCE,
        ]
        super().__init__(
            [str(each) for each in arguments],
            "the image is damaged or too large: its decoder crashed",
            environment=os.environ | _ALONE,
            process_group=0,  # so that it is killed together with its children
        )

    def ask(
        self, data: bytes, rendering: Rendering, beside: float, others_wait: Callable[[], bool]
    ) -> bytes:
        """Sends an image file to the process and returns its answer.

        While `others_wait`, the file has `beside` seconds of CPU time.

        Raises:
            UnreadableImage: the process crashed.
            SlowImage: the process exceeded its time limit.
        """
        began = time.monotonic()
        options = json.dumps(dataclasses.asdict(rendering)).encode()
        self._send(options + data, len(options))
        self._wait(began, beside, others_wait)
        return self._receive()

    def _wait(self, began: float, beside: float, others_wait: Callable[[], bool]) -> None:
        """Waits for the first byte of an answer; raises SlowImage as `ask` does."""
        before: float | None = None  # most files are decoded before the first check
        last = 0.0
        moved = began
        while not select.select([self._output], [], [], _LOOK)[0]:
            now, worked = time.monotonic(), self._worked()
            if before is None:
                before = worked
            elif worked > last:
                moved = now
            last = worked
            if worked - before > SECONDS:
                raise SlowImage(
                    f"the image takes more than {SECONDS} seconds to decode; save it anew, smaller "
                    "or as plain PNG"
                )
            if worked - before > beside and others_wait():
                raise SlowImage(
                    f"the image takes more than {beside:g} seconds to decode, and others "
                    "wait; send it later, or smaller"
                )
            if now - began > PATIENCE or now - moved > STUCK:
                raise SlowImage(
                    f"the image was not decoded within {now - began:.0f} seconds; send it later, "
                    "or smaller"
                )

    def end(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        super().end()

    def _worked(self) -> float:
        """Returns the CPU seconds of the process and its children."""
        try:
            process = psutil.Process(self._process.pid)
            return sum(
                sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True))
            )
        except psutil.Error:
            return 0.0  # it has just exited, which the next read reports


@cache
def bounded_decoders() -> BoundedDecoders:
    """Returns the decoders shared by this process."""
    return BoundedDecoders()
