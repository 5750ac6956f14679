"""Decoding of lossless JPEG and JPEG-LS by GDCM in a child process.

A damaged frame makes GDCM throw a C++ exception that Python cannot catch and that ends the process,
which would be a server or a search. In a child process only that image is lost; the next one gets a
new process.
"""

from __future__ import annotations

import io
import queue
import select
from functools import cache

import numpy as np

from medtl.imaging import gdcm_worker
from medtl.imaging.decoder_process import DecoderProcess
from medtl.imaging.pixels import UnreadableImage

SECONDS = 60  # time limit of an answer, after which the decoder is killed


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


class _Decoder(DecoderProcess):
    def __init__(self) -> None:
        failure = "the DICOM file's compressed pixels are damaged: its decoder crashed"
        super().__init__([gdcm_worker.__file__], failure)

    def ask(self, data: bytes, place: int) -> bytes:
        self._send(data, place)
        ready, _, _ = select.select([self._output], [], [], SECONDS)
        if not ready:
            raise UnreadableImage(f"the DICOM file's pixels were not decoded in {SECONDS} seconds")
        return self._receive()


@cache
def _idle() -> queue.LifoQueue[_Decoder]:
    """Returns the queue of idle decoder processes; at most one per concurrent thread."""
    return queue.LifoQueue()
