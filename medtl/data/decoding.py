"""Decoding of many image files at once: by threads, and by processes where many are left.

Pillow and NumPy release the interpreter lock for about three quarters of the time of a JPEG, a PNG
or an uncompressed DICOM file of a megapixel, so that threads use about four processors. OpenJPEG
(JPEG 2000) and the decoder of run lengths hold it nearly all the time: only processes decode these
at once.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import medtl
from medtl.data import decoding_worker
from medtl.data.decoded_image import DecodedImage, ImageFile, decode_image, unreadable
from medtl.errors import MedtlError
from medtl.imaging.decoder_process import DecoderProcess
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.rendering import Rendering

AHEAD = 128
"""Images decoded before they are needed; bounds memory."""
FIRST = 64
"""Images decoded by threads, whose time tells whether processes are started."""
PAYS = 20.0
"""Least seconds that the other images would take, for processes to be started. Ours: a process
starts in half a second of processor time."""
BUSY = 0.8
"""Share of the time of all processors that threads use, above which processes are not faster.
Ours."""
MOST = 16
"""Largest number of processes; each holds 70 MB, and the image that it decodes."""


def decode_in_order(images: Sequence[ImageFile], rendering: Rendering) -> Iterator[DecodedImage]:
    """Decodes images with all processors, and yields them in their order.

    Threads decode a small set. Processes take over where, as measured on the first images, threads
    leave processors idle and the others would take more than `PAYS` seconds. The images are the
    same.

    Raises:
        MedtlError: a process was killed, as when memory is short.
    """
    by_thread = partial(decode_image, rendering=rendering)
    workers = min(MOST, processors())
    began, worked = time.monotonic(), time.process_time()
    yield from _in_order(by_thread, images[:FIRST], workers)
    rest = images[FIRST:]
    seconds, used = time.monotonic() - began, time.process_time() - worked
    is_short = len(rest) * seconds / FIRST < PAYS
    if workers == 1 or is_short or used > BUSY * workers * seconds:
        yield from _in_order(by_thread, rest, workers)
        return
    processes = _Processes(rendering)
    try:
        yield from _in_order(processes.decode, rest, workers)
    finally:
        processes.end()


def processors() -> int:
    """Returns the number of processors that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _in_order(
    decode: Callable[[ImageFile], DecodedImage], images: Sequence[ImageFile], workers: int
) -> Iterator[DecodedImage]:
    """Decodes with threads; after an error, or Ctrl-C, those that have not begun are left out."""
    pool = ThreadPoolExecutor(workers)
    ahead: deque[Future[DecodedImage]] = deque()
    try:
        for image in images:
            ahead.append(pool.submit(decode, image))
            if len(ahead) == AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Processes:
    """Decoder processes, one for each thread that calls `decode`."""

    def __init__(self, rendering: Rendering) -> None:
        self._rendering = rendering
        self._own = threading.local()
        self._begun: list[_Decoder] = []

    def decode(self, image: ImageFile) -> DecodedImage:
        """Decodes an image in the process of this thread, or here if none can be started.

        Raises:
            MedtlError: the process was killed.
        """
        decoder = getattr(self._own, "decoder", None)
        if decoder is None:
            try:
                decoder = self._own.decoder = _Decoder()
            except OSError:
                return decode_image(image, self._rendering)
            self._begun.append(decoder)
        try:
            return decoder.ask(image, self._rendering)
        except UnreadableImage as error:
            self._own.decoder = None
            if decoder.was_killed():
                raise MedtlError(
                    "a process that decodes images was killed, as when memory is short; free some "
                    "memory, then the same command decodes them anew"
                ) from error
            return unreadable(error)

    def end(self) -> None:
        """Ends all processes."""
        for decoder in self._begun:
            decoder.end()


class _Decoder(DecoderProcess):
    def __init__(self) -> None:
        package = Path(medtl.__file__).parent.parent
        super().__init__(
            [decoding_worker.__file__, str(package)],
            "the image is damaged: its decoder crashed",
            environment=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            process_group=0,  # Ctrl-C in a terminal is for the process that starts it
        )

    def ask(self, image: ImageFile, rendering: Rendering) -> DecodedImage:
        """Returns the image as decoded by the process.

        Raises:
            UnreadableImage: the process crashed.
            Exception: as raised by `decode_image`.
        """
        self._send(pickle.dumps((image, rendering)), 0)
        answer = pickle.loads(self._receive())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def was_killed(self) -> bool:
        """Returns whether the process, which has ended, was killed from outside."""
        return self._process.wait() == -9  # SIGKILL, as sent by the kernel when memory is short
