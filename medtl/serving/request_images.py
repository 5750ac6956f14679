"""Bounded decoding of image files: of a request, or of a folder.

Plain files are decoded in threads, all others in processes with limits on time and memory, so that
concurrent requests are not blocked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from threading import Semaphore

import numpy as np

from medtl.imaging.bounded_decoding import BoundedDecoders, SlowImage, bounded_decoders
from medtl.imaging.decoding_limits import is_plain
from medtl.imaging.pixels import UnreadableImage
from medtl.imaging.rendering import Rendering

MOST_SLOW = 2  # files per request that may exceed the time limit
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/_=\s-]")
_AT_ONCE = min(4, os.cpu_count() or 1)  # plain files in total, other files per request
_decoding = Semaphore(_AT_ONCE)


class FileReader:
    """Concurrent reader of the files of one request, or of a folder; a context manager.

    Args:
        rendering: of the files, as in training.
        masked: true if a missing image is all 0.
        most_slow: files that may exceed the time limit, after which only plain ones are decoded.
        decoders: of other files than plain ones; by default those shared by this process.
    """

    def __init__(
        self,
        rendering: Rendering,
        masked: bool,
        most_slow: float = MOST_SLOW,
        decoders: BoundedDecoders | None = None,
    ) -> None:
        self._rendering, self._masked = rendering, masked
        self._slow, self._most_slow = 0, most_slow
        self._decoders = decoders or bounded_decoders()
        self._threads = ThreadPoolExecutor(_AT_ONCE)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(self, *_: object) -> None:
        # an abandoned request does not wait for pending files
        self._threads.shutdown(wait=False, cancel_futures=True)

    def read(
        self, samples: Sequence[Sequence[object]]
    ) -> Iterator[list[np.ndarray | UnreadableImage]]:
        """Yields the pixels [1 or 3, S, S] of each file of each sample, or the error.

        Decoding starts at once. A file is given as its bytes, or as a path, which is opened when
        its turn comes.
        """
        files = [file for sample in samples for file in sample]
        # a thread costs more than it gains for a single file
        found = self._threads.map(self._image, files) if len(files) > 1 else map(self._image, files)
        return (list(islice(found, len(sample))) for sample in samples)

    def _image(self, file: object) -> np.ndarray | UnreadableImage:
        if self._masked and not file:
            side = self._rendering.image_size
            return np.zeros((1, side, side), np.uint8)
        if file is None:
            return UnreadableImage("no image file is given")
        if isinstance(file, Path):
            try:
                file = file.read_bytes()
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                reason = error.strerror if isinstance(error, OSError) else "an impossible path"
                return UnreadableImage(f"the file cannot be opened ({reason})")
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
            return self._rendering.of_file(file)

    def _other(self, file: bytes) -> np.ndarray:
        if not file:
            raise UnreadableImage("the file is empty")
        if self._slow >= self._most_slow:
            raise UnreadableImage(
                f"not decoded, for {self._most_slow} files of this request took too long; send "
                "it by itself"
            )
        return self._decoders.square(file, self._rendering)


def _called(value: object) -> str:
    if isinstance(value, str):
        wrong = _NOT_BASE64.search(value)
        where = f"{wrong[0]!r} at {wrong.start()}" if wrong else "cut short, or damaged"
        return f"text that is no base64 ({where})"
    if isinstance(value, dict):
        return 'an object; send the base64 of the file as text, or {"b64": TEXT}'
    return type(value).__name__
