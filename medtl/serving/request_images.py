"""Bounded decoding of the image files of a request.

Plain files are decoded in threads, all others in processes with limits on time and memory, so that
concurrent requests are not blocked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Semaphore

import numpy as np

from medtl.imaging.bounded_decoding import SlowImage, bounded_decoders
from medtl.imaging.decode import decode
from medtl.imaging.decoding_limits import is_plain
from medtl.imaging.pixels import UnreadableImage, square

MOST_SLOW = 2  # files per request that may exceed the time limit
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/_=\s-]")
_AT_ONCE = min(4, os.cpu_count() or 1)  # plain files in total, other files per request
_decoding = Semaphore(_AT_ONCE)


class FileReader:
    """Concurrent reader of the files of one request; a context manager."""

    def __init__(self, image_size: int, masked: bool) -> None:
        """Configures squares of `image_size`; if `masked`, a missing image is all 0."""
        self._side, self._masked = image_size, masked
        self._slow = 0
        self._threads = ThreadPoolExecutor(_AT_ONCE)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *_: object) -> None:
        # an abandoned request does not wait for pending files
        self._threads.shutdown(wait=False, cancel_futures=True)

    def read(self, samples: list[list[object]]) -> Iterator[list[np.ndarray | UnreadableImage]]:
        """Yields the pixels [1 or 3, S, S] of each file of each sample, or the error."""
        files = [file for sample in samples for file in sample]
        # a thread costs more than it gains for a single file
        found = self._threads.map(self._image, files) if len(files) > 1 else map(self._image, files)
        return (list(islice(found, len(sample))) for sample in samples)

    def _image(self, file: object) -> np.ndarray | UnreadableImage:
        if self._masked and not file:
            return np.zeros((1, self._side, self._side), np.uint8)
        if file is None:
            return UnreadableImage("no image file is given")
        if not isinstance(file, bytes):
            return UnreadableImage(f"not the bytes of an image file, but {_called(file)}")
        try:
            return self._plain(file) if is_plain(file) else self._other(file)
        except SlowImage as error:
            self._slow += 1
            return error
        except UnreadableImage as error:
            return error

    def _plain(self, file: bytes) -> np.ndarray:
        with _decoding:
            return square(decode(file), self._side)

    def _other(self, file: bytes) -> np.ndarray:
        if not file:
            raise UnreadableImage("the file is empty")
        if self._slow >= MOST_SLOW:
            raise UnreadableImage(
                f"not decoded, for {MOST_SLOW} files of this request took too long; send it by "
                "itself"
            )
        return bounded_decoders().square(file, self._side)


def _called(value: object) -> str:
    if isinstance(value, str):
        wrong = _NOT_BASE64.search(value)
        where = f"{wrong[0]!r} at {wrong.start()}" if wrong else "cut short, or damaged"
        return f"text that is no base64 ({where})"
    if isinstance(value, dict):
        return 'an object; send the base64 of the file as text, or {"b64": TEXT}'
    return type(value).__name__
