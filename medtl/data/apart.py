"""Frames that only GDCM decodes, in a process of its own.

A damaged frame makes GDCM throw what Python cannot catch: the process ends, and with it a server or
a search. So a process that is kept for it decodes lossless JPEG and JPEG-LS; when one ends, that
image is unreadable, and the next one gets a new process.
"""

from __future__ import annotations

import io
import queue
import select
import subprocess
import sys
from functools import cache

import numpy as np

from medtl.data import gdcm_frames
from medtl.data.depth import UnreadableImage

SECONDS = 60  # after which a decoder that says nothing is ended


def pixels_apart(data: bytes, place: int) -> np.ndarray:
    """Decodes a frame (index from 0) of a DICOM file, with all bits of the stored words.

    Raises:
        UnreadableImage: GDCM cannot decode the frame, or its process crashed.
    """
    try:
        decoder = _idle().get_nowait()
    except queue.Empty:
        decoder = _Decoder()
    try:
        answer = decoder.ask(data, place)
    except BaseException:
        decoder.end()
        raise
    _idle().put(decoder)
    if not answer:
        raise UnreadableImage("the DICOM file's compressed pixels are damaged")
    return np.load(io.BytesIO(answer), allow_pickle=False)


class _Decoder:
    """One process; it ends when this one does, for its standard input does."""

    def __init__(self) -> None:
        # -P: modules beside the script are not the ones that it imports
        self._process = subprocess.Popen(
            [sys.executable, "-P", gdcm_frames.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, data: bytes, place: int) -> bytes:
        numbers = len(data).to_bytes(8, "little") + place.to_bytes(8, "little")
        try:
            self._process.stdin.write(numbers + data)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        ready, _, _ = select.select([self._process.stdout], [], [], SECONDS)
        if not ready:
            raise UnreadableImage(f"the DICOM file's pixels were not decoded in {SECONDS} seconds")
        length = self._read(8)
        return self._read(int.from_bytes(length, "little"))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self, length: int) -> bytes:
        data = self._process.stdout.read(length)
        if len(data) < length:
            raise self._ended()
        return data

    def _ended(self) -> UnreadableImage:
        return UnreadableImage("the DICOM file's compressed pixels are damaged: its decoder ended")


@cache
def _idle() -> queue.LifoQueue[_Decoder]:
    """The processes that decode nothing at the moment: never more than threads have asked."""
    return queue.LifoQueue()
