"""Many images are decoded in order, by threads and by processes alike."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from medtl.data import decoding
from medtl.data.decoded_image import DecodedImage, ImageFile
from medtl.data.decoding import decode_in_order
from medtl.errors import MedtlError
from medtl.imaging.rendering import Rendering


def drawn(folder: Path, count: int = 9) -> list[ImageFile]:
    """Writes grey images, and one of each of: 16 bits, damaged, missing."""
    random = np.random.default_rng(0)
    for number in range(count):
        grey = random.integers(0, 255, (12, 10), np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    deep = random.integers(0, 65535, (12, 10)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "5.png")
    (folder / "6.png").write_bytes(b"no image")
    files: list[Path | None] = [folder / f"{number}.png" for number in range(count)]
    return [(file, 1) for file in [*files[:7], None, *files[7:]]]


def decoded(images: list[ImageFile]) -> list[DecodedImage]:
    return list(decode_in_order(images, Rendering.of(8)))


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children()}


@pytest.fixture
def processes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads decode two images, and two processes the others."""
    for name, value in {"FIRST": 2, "PAYS": 0.0, "BUSY": 1e9, "MOST": 2, "AHEAD": 3}.items():
        monkeypatch.setattr(decoding, name, value)
    monkeypatch.setattr(decoding, "processors", lambda: 2)


def test_processes_decode_the_same_images_in_the_same_order(
    tmp_path: Path, processes_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, before, started = drawn(tmp_path), children(), []
    original = decoding._Decoder.__init__

    def counted(self: decoding._Decoder) -> None:
        original(self)
        started.append(self._process.pid)

    monkeypatch.setattr(decoding._Decoder, "__init__", counted)
    apart = decoded(images)
    assert 1 <= len(started) <= 2
    assert children() == before
    monkeypatch.setattr(decoding, "PAYS", 1e9)
    together = decoded(images)

    assert [each.row for each in apart] == [each.row for each in together]
    assert [each.row[3] for each in apart][4:7] == ["grey", "deep grey", ""]
    assert "not an image" in apart[6].row[4]
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("busy", [1e9, 0.0])
def test_no_process_is_started_for_a_small_set_or_where_threads_use_the_processors(
    tmp_path: Path, processes_at_once: None, monkeypatch: pytest.MonkeyPatch, busy: float
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(decoding._Decoder, "__init__", refused)
    monkeypatch.setattr(decoding, "BUSY", busy)
    monkeypatch.setattr(decoding, "PAYS", 0.0 if busy == 0 else 20.0)

    assert len(decoded(drawn(tmp_path))) == 10


def test_threads_decode_where_no_process_can_be_started(
    tmp_path: Path, processes_at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr("medtl.imaging.decoder_process.subprocess.Popen", refused)

    assert sum(each.pixels is not None for each in decoded(drawn(tmp_path))) == 8


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_process_that_crashes_costs_its_image_and_a_killed_one_is_a_line(
    tmp_path: Path, processes_at_once: None, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    images, before, original = drawn(tmp_path), children(), decoding._Decoder.ask

    def crashed(self: decoding._Decoder, image: ImageFile, rendering: Rendering) -> DecodedImage:
        if image == images[3]:
            os.kill(self._process.pid, number)
        return original(self, image, rendering)

    monkeypatch.setattr(decoding._Decoder, "ask", crashed)
    if number == signal.SIGKILL:
        with pytest.raises(MedtlError, match="killed, as when memory is short"):
            decoded(images)
    else:
        found = decoded(images)
        assert found[3].row[4] == "the image is damaged: its decoder crashed"
        assert sum(each.pixels is not None for each in found) == 7
    assert children() == before


def test_processes_end_with_a_pass_that_is_stopped(tmp_path: Path, processes_at_once: None) -> None:
    before = children()
    passing = decode_in_order(drawn(tmp_path), Rendering.of(8))
    for _ in range(4):
        next(passing)
    assert children() > before

    passing.close()

    assert children() == before
