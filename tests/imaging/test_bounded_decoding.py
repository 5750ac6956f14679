"""Bounded decoding: same pixels as in-process, and costly files are stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks.crafted import in_runs, picture, png, rewritten
from medtl.imaging import bounded_decoding
from medtl.imaging.bounded_decoding import BoundedDecoders, SlowImage
from medtl.imaging.decode import decode
from medtl.imaging.pixels import UnreadableImage, square

LOSSLESS = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"
SLOW = in_runs(4_000)  # seconds of Python


@pytest.fixture(scope="module")
def kept() -> BoundedDecoders:
    return BoundedDecoders(most=1)


@pytest.fixture
def decoders(kept: BoundedDecoders) -> Iterator[BoundedDecoders]:
    """Yields a pool of one process, and checks afterwards that it still decodes."""
    yield kept
    assert kept.square(picture("PNG"), 8).shape == (1, 8, 8)


@pytest.mark.parametrize(
    "file",
    [
        picture("GIF"),
        picture("TIFF"),
        rewritten(picture("PNG"), "DICOM"),
        LOSSLESS.read_bytes(),
    ],
)
def test_pixels_are_those_that_are_decoded_here(decoders: BoundedDecoders, file: bytes):
    expected = square(decode(file), 32)
    found = decoders.square(file, 32)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("file", [b"junk", picture("PNG")[:-40], png(60_000, 60_000)])
def test_what_is_refused_here_is_refused_in_the_same_line(decoders: BoundedDecoders, file: bytes):
    with pytest.raises(UnreadableImage) as here:
        decode(file)
    with pytest.raises(UnreadableImage) as there:
        decoders.square(file, 32)
    assert str(there.value) == str(here.value)


def test_a_file_that_takes_too_long_is_ended(
    decoders: BoundedDecoders, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(bounded_decoding, "SECONDS", 0.2)
        with pytest.raises(SlowImage, match=r"more than 0\.2 seconds to decode; save it anew"):
            decoders.square(SLOW, 32)


def test_a_file_that_takes_long_makes_way_for_another(
    decoders: BoundedDecoders, monkeypatch: pytest.MonkeyPatch
):
    refused: list[UnreadableImage] = []

    def ask() -> None:
        with pytest.raises(SlowImage) as refusal:
            decoders.square(SLOW, 32)
        refused.append(refusal.value)

    slow = threading.Thread(target=ask)
    with monkeypatch.context() as patch:
        patch.setattr(decoders, "_beside", 0.2)
        slow.start()
        time.sleep(0.1)
        assert decoders.square(picture("TIFF"), 16).shape == (1, 16, 16)
        slow.join()
    assert "others wait; send it later" in str(refused[0])


def test_a_file_that_takes_too_much_memory_is_refused():
    few = BoundedDecoders(most=1, memory=2**27)
    with pytest.raises(UnreadableImage, match=r"not enough memory|its decoder crashed"):
        few.square(png(9_000, 9_000, filled=True), 32)
    assert few.square(picture("PNG"), 8).shape == (1, 8, 8)


def test_ended_processes_are_started_again(decoders: BoundedDecoders):
    decoders.square(picture("PNG"), 8)
    idle = list(decoders._idle)
    decoders.end()
    assert [each._process.returncode is not None for each in idle] == [True] * len(idle)
    assert decoders.square(picture("PNG"), 8).shape == (1, 8, 8)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_decoder_that_ends_or_hangs_costs_one_image(
    decoders: BoundedDecoders, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
):
    decoders.square(picture("PNG"), 8)
    (idle,) = decoders._idle
    idle._process.send_signal(sent)
    with monkeypatch.context() as patch:
        patch.setattr(bounded_decoding, "STUCK", 0.9)
        with pytest.raises(UnreadableImage, match=r"its decoder crashed|not decoded within 1"):
            decoders.square(picture("TIFF"), 8)
    assert idle._process.returncode is not None
